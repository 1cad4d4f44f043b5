//! A stored message, and the receipts of its deliveries.

use std::time::Duration;

use queue_api::{
    DeadLetter, DeadReason, Delivery, MessageId, MessageState, NewMessage, PeekedMessage, Receipt,
    millis::{self, Millis},
};
use uuid::Uuid;

/// A message as it was enqueued, and what has happened to it since.
#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub(crate) sent: NewMessage,
    pub(crate) enqueued_at: Millis,
    pub(crate) attempts: u32,
    /// The last delivery, which its receipt names. The next delivery replaces it (A2), settling
    /// clears it (A4), and time does neither, so an expired receipt still works (A3).
    pub(crate) delivery: Option<Uuid>,
}

/// A message that is not delivered any more.
#[derive(Debug)]
pub(crate) struct DeadMessage {
    pub(crate) message: Box<StoredMessage>,
    pub(crate) died_at: Millis,
    pub(crate) reason: DeadReason,
}

impl StoredMessage {
    pub(crate) fn new(sent: NewMessage, now: Millis) -> Self {
        Self {
            sent,
            enqueued_at: now,
            attempts: 0,
            delivery: None,
        }
    }

    /// Counts a delivery (L3) and gives it a fresh receipt. The lease lasts from `now` for
    /// `timeout`.
    pub(crate) fn deliver(&mut self, now: Millis, timeout: Millis) -> Delivery {
        let delivery = Uuid::new_v4();
        self.attempts += 1;
        self.delivery = Some(delivery);
        Delivery {
            id: self.sent.id.clone(),
            payload: self.sent.payload.clone(),
            headers: self.sent.headers.clone(),
            attempt: self.attempts,
            max_attempts: self.sent.max_attempts,
            enqueued_at: millis::to_time(self.enqueued_at),
            visibility_timeout: Duration::from_millis(timeout.unsigned_abs()),
            lease_expires_at: millis::to_time(now.saturating_add(timeout)),
            receipt: receipt(delivery, &self.sent.id),
        }
    }

    /// Whether `receipt` is that of the last delivery, and nothing has settled it.
    pub(crate) fn accepts(&self, receipt: &Receipt) -> bool {
        let presented = receipt.as_str().split_once('-');
        let (Some((presented, _)), Some(delivery)) = (presented, self.delivery) else {
            return false;
        };
        *presented == *delivery.simple().encode_lower(&mut Uuid::encode_buffer())
    }

    pub(crate) fn peeked(&self, ready_at: Millis, now: Millis) -> PeekedMessage {
        PeekedMessage {
            id: self.sent.id.clone(),
            payload: self.sent.payload.clone(),
            headers: self.sent.headers.clone(),
            attempts: self.attempts,
            enqueued_at: millis::to_time(self.enqueued_at),
            state: match self.delivery {
                _ if ready_at <= now => MessageState::Ready,
                Some(_) => MessageState::Leased,
                None => MessageState::Delayed,
            },
            ready_at: millis::to_time(ready_at),
        }
    }
}

impl DeadMessage {
    pub(crate) fn listed(&self) -> DeadLetter {
        DeadLetter {
            id: self.message.sent.id.clone(),
            payload: self.message.sent.payload.clone(),
            headers: self.message.sent.headers.clone(),
            attempts: self.message.attempts,
            enqueued_at: millis::to_time(self.message.enqueued_at),
            died_at: millis::to_time(self.died_at),
            reason: self.reason.clone(),
        }
    }
}

/// A receipt names the delivery and the message.
fn receipt(delivery: Uuid, id: &MessageId) -> Receipt {
    let mut buffer = Uuid::encode_buffer();
    let delivery = delivery.simple().encode_lower(&mut buffer);
    Receipt::new([delivery, "-", id.as_str()].concat())
}

/// The id of the message that `receipt` is for. A made-up receipt may have none.
pub(crate) fn message_id(receipt: &Receipt) -> Option<MessageId> {
    let (_, id) = receipt.as_str().split_once('-')?;
    MessageId::new(id).ok()
}
