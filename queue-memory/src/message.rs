//! A message as the store keeps it.

use std::{num::NonZeroU64, time::Duration};

use queue_api::{
    Bytes, DeadReason, Delivery, Headers, MessageId, NewMessage,
    millis::{self, Millis},
};

use crate::{line::Standing, receipt};

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) payload: Bytes,
    pub(crate) headers: Headers,
    pub(crate) visibility: Millis,
    pub(crate) max_attempts: u32,
    pub(crate) attempts: u32,
    pub(crate) enqueued_at: Millis,
    /// The token of the delivery that nothing has settled or superseded. It outlives the
    /// lease: an expired receipt still works (A3).
    pub(crate) token: Option<NonZeroU64>,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) enum Place {
    /// In a line of the ready or of the pending.
    InLine(Set, Standing),
    /// In the set of dead letters.
    Dead(Box<Death>),
}

/// Which lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// The one of the ready messages.
    Ready,
    /// One of those of the pending ones, who are delayed, or leased where there is a token.
    Pending,
}

/// Boxed, because few messages die and all have the room for it.
#[derive(Debug)]
pub(crate) struct Death {
    pub(crate) at: Millis,
    pub(crate) reason: DeadReason,
}

impl Message {
    /// A message that is not yet in any set; where it says that it is means nothing.
    pub(crate) fn new(message: &NewMessage, now: Millis) -> Self {
        Self {
            id: message.id.clone(),
            payload: message.payload.clone(),
            headers: message.headers.clone(),
            visibility: millis::ceil(message.visibility_timeout),
            max_attempts: message.max_attempts,
            attempts: 0,
            enqueued_at: now,
            token: None,
            place: Place::InLine(Set::Pending, Standing::alone(now)),
        }
    }

    /// The delivery of a lease for `visibility`, which ends at `until`.
    pub(crate) fn delivery(
        &self,
        token: NonZeroU64,
        visibility: Millis,
        until: Millis,
    ) -> Delivery {
        Delivery {
            id: self.id.clone(),
            payload: self.payload.clone(),
            headers: self.headers.clone(),
            attempt: self.attempts,
            enqueued_at: millis::to_time(self.enqueued_at),
            max_attempts: self.max_attempts,
            visibility_timeout: Duration::from_millis(visibility.unsigned_abs()),
            lease_expires_at: millis::to_time(until),
            receipt: receipt::new(token, &self.id),
        }
    }
}
