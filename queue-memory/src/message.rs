//! A message as the store keeps it.

use std::time::Duration;

use queue_api::{
    Bytes, DeadReason, Delivery, Headers, MessageId, NewMessage, Receipt,
    millis::{self, Millis},
};

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
            visibility: millis::ceil(message.visibility_timeout),
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
        now: Millis,
        visibility: Millis,
        receipt: Receipt,
    ) -> Delivery {
        Delivery {
            id: id.clone(),
            payload: self.payload.clone(),
            headers: self.headers.clone(),
            attempt: self.attempts,
            enqueued_at: millis::to_time(self.enqueued_at),
            max_attempts: self.max_attempts,
            visibility_timeout: Duration::from_millis(visibility.unsigned_abs()),
            lease_expires_at: millis::to_time(now.saturating_add(visibility)),
            receipt,
        }
    }
}
