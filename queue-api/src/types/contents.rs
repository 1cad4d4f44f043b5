//! What a queue contains.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{Headers, MessageId};

/// The number of messages in a queue, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeekedMessage {
    /// The message's id.
    pub id: MessageId,
    /// The bytes that were enqueued.
    pub payload: Bytes,
    /// The headers that were enqueued.
    pub headers: Headers,
    /// The number of deliveries so far.
    pub attempts: u32,
    /// The time of the enqueue.
    pub enqueued_at: SystemTime,
    /// The state, by the backend's clock.
    pub state: MessageState,
    /// The time at which the message became or becomes ready: the end of its delay or lease.
    pub ready_at: SystemTime,
}

/// The state of a live message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
