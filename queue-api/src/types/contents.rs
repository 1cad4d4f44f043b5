//! What a queue contains.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{Headers, MessageId, NewMessage};

/// The number of messages in a queue, by state.
///
/// A backend begins with the default, which is an empty queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Messages that can be leased now. Includes those whose lease has expired.
    pub ready: u64,
    /// Messages whose delay has not passed yet.
    pub delayed: u64,
    /// Messages with a running lease.
    pub leased: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age of the oldest ready message: the time since it became ready, in whole milliseconds.
    /// `None` if no message is ready.
    pub oldest_ready: Option<Duration>,
}

/// A live message, read without leasing it.
///
/// A backend makes one with [`PeekedMessage::new`], and sets what is not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeekedMessage {
    /// The message's id.
    pub id: MessageId,
    /// The bytes that were enqueued.
    pub payload: Bytes,
    /// The headers that were enqueued.
    pub headers: Headers,
    /// The number of deliveries so far.
    pub attempts: u32,
    /// The number of deliveries after which it becomes a dead letter.
    pub max_attempts: u32,
    /// How long a lease of it lasts, unless the lease call sets another time.
    pub visibility_timeout: Duration,
    /// The time of the enqueue.
    pub enqueued_at: SystemTime,
    /// The state, by the backend's clock.
    pub state: MessageState,
    /// The time at which the message became or becomes ready: the end of its delay or lease.
    pub ready_at: SystemTime,
}

setters!(QueueStats {
    with_ready ready: u64,
    with_delayed delayed: u64,
    with_leased leased: u64,
    with_dead dead: u64,
    with_oldest_ready oldest_ready: Option<Duration>,
});

impl PeekedMessage {
    /// A message without headers or deliveries and with the default settings. Both times are the
    /// Unix epoch.
    pub fn new(id: MessageId, payload: impl Into<Bytes>, state: MessageState) -> Self {
        Self {
            id,
            payload: payload.into(),
            headers: Headers::new(),
            attempts: 0,
            max_attempts: NewMessage::DEFAULT_MAX_ATTEMPTS,
            visibility_timeout: NewMessage::DEFAULT_VISIBILITY_TIMEOUT,
            enqueued_at: SystemTime::UNIX_EPOCH,
            state,
            ready_at: SystemTime::UNIX_EPOCH,
        }
    }
}

setters!(PeekedMessage {
    with_headers headers: Headers,
    with_attempts attempts: u32,
    with_max_attempts max_attempts: u32,
    with_visibility_timeout visibility_timeout: Duration,
    with_enqueued_at enqueued_at: SystemTime,
    with_ready_at ready_at: SystemTime,
});

/// The state of a live message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageState {
    /// It can be leased.
    Ready,
    /// Its delay has not passed yet.
    Delayed,
    /// Its lease is running.
    Leased,
}

/// The messages that a purge removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purge {
    /// All live messages: ready, delayed and leased. Dead letters stay.
    Live,
    /// All dead letters. Live messages stay.
    Dead,
}
