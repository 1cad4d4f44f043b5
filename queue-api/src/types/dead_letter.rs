//! Dead letters.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{Headers, MessageId, NewMessage};

/// A message that is no longer delivered.
///
/// A backend makes one with [`DeadLetter::new`], and sets what is not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The message's id.
    pub id: MessageId,
    /// The bytes that were enqueued.
    pub payload: Bytes,
    /// The headers that were enqueued.
    pub headers: Headers,
    /// The number of deliveries.
    pub attempts: u32,
    /// The number of deliveries that were allowed.
    pub max_attempts: u32,
    /// How long a lease of it lasts after a redrive, unless the lease call sets another time.
    pub visibility_timeout: Duration,
    /// The time of the enqueue.
    pub enqueued_at: SystemTime,
    /// The time at which it became a dead letter.
    pub died_at: SystemTime,
    /// Why it became a dead letter.
    pub reason: DeadReason,
}

impl DeadLetter {
    /// A dead letter without headers or deliveries and with the default settings. Both times are
    /// the Unix epoch.
    pub fn new(id: MessageId, payload: impl Into<Bytes>, reason: DeadReason) -> Self {
        Self {
            id,
            payload: payload.into(),
            headers: Headers::new(),
            attempts: 0,
            max_attempts: NewMessage::DEFAULT_MAX_ATTEMPTS,
            visibility_timeout: NewMessage::DEFAULT_VISIBILITY_TIMEOUT,
            enqueued_at: SystemTime::UNIX_EPOCH,
            died_at: SystemTime::UNIX_EPOCH,
            reason,
        }
    }
}

setters!(DeadLetter {
    with_headers headers: Headers,
    with_attempts attempts: u32,
    with_max_attempts max_attempts: u32,
    with_visibility_timeout visibility_timeout: Duration,
    with_enqueued_at enqueued_at: SystemTime,
    with_died_at died_at: SystemTime,
});

/// Why a message became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// Its last delivery ended without an answer, such as by a crash.
    AttemptsExhausted,
    /// A consumer dead-lettered it for this reason: a handler gave up, or its last attempt failed.
    Rejected(String),
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AttemptsExhausted => f.write_str("attempts exhausted"),
            Self::Rejected(reason) => f.write_str(reason),
        }
    }
}

/// The dead letters to redrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redrive {
    /// All dead letters of the queue.
    All,
    /// The dead letters with these ids.
    Ids(Vec<MessageId>),
}
