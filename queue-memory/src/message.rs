//! A message as the store keeps it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use queue_api::{Bytes, DeadReason, Delivery, Headers, MessageId, NewMessage, Receipt};

/// Milliseconds since the Unix epoch: the resolution of the contract.
pub(crate) type Millis = u64;

/// Where a message stands in the order of its queue: its ready time, and among those of the
/// same millisecond the order in which they got there.
pub(crate) type Position = (Millis, u64);

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) payload: Bytes,
    pub(crate) headers: Headers,
    pub(crate) visibility: Millis,
    pub(crate) max_attempts: u32,
    pub(crate) attempts: u32,
    pub(crate) enqueued_at: Millis,
    /// The token of the delivery that nothing has settled or superseded. It outlives the
    /// lease: an expired receipt still works (A3).
    pub(crate) token: Option<u64>,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) enum Place {
    /// In the set of ready messages.
    Ready(Position),
    /// In the set of pending ones: delayed, or leased where there is a token.
    Pending(Position),
    /// In the set of dead letters.
    Dead { at: Millis, reason: DeadReason },
}

impl Message {
    /// A message that is not yet in any set.
    pub(crate) fn new(message: &NewMessage, now: Millis) -> Self {
        Self {
            payload: message.payload.clone(),
            headers: message.headers.clone(),
            visibility: round_up(message.visibility_timeout),
            max_attempts: message.max_attempts,
            attempts: 0,
            enqueued_at: now,
            token: None,
            place: Place::Pending((now, 0)),
        }
    }

    pub(crate) fn delivery(
        &self,
        id: &MessageId,
        expires_at: Millis,
        receipt: Receipt,
    ) -> Delivery {
        Delivery {
            id: id.clone(),
            payload: self.payload.clone(),
            headers: self.headers.clone(),
            attempt: self.attempts,
            enqueued_at: to_time(self.enqueued_at),
            lease_expires_at: to_time(expires_at),
            receipt,
        }
    }
}

/// The last whole millisecond that has passed at `time`.
pub(crate) fn to_millis(time: SystemTime) -> Millis {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn to_time(millis: Millis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// A duration in whole milliseconds, rounded up: nothing may happen too early.
pub(crate) fn round_up(duration: Duration) -> Millis {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
