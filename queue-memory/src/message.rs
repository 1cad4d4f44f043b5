//! A stored message, and the receipts of its deliveries.

use std::time::Duration;

use queue_api::{
    DeadLetter, DeadReason, Delivery, MessageId, MessageState, NewMessage, PeekedMessage, Receipt,
    millis::{self, Millis},
};
use uuid::Uuid;

/// The place of a live message in the order of leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// When the message is ready. For a leased message, when the lease expires.
    pub(crate) ready_at: Millis,
    /// Distinct. Orders the messages of one millisecond by arrival.
    pub(crate) number: u64,
}

/// A message as it was enqueued, and what has happened to it since.
#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub(crate) sent: NewMessage,
    pub(crate) enqueued_at: Millis,
    pub(crate) position: Position,
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
            position: Position::default(),
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
        Delivery::new(
            self.sent.id.clone(),
            self.sent.payload.clone(),
            receipt(delivery, &self.sent.id),
        )
        .with_headers(self.sent.headers.clone())
        .with_attempt(self.attempts)
        .with_max_attempts(self.sent.max_attempts_or_default())
        .with_enqueued_at(millis::to_time(self.enqueued_at))
        .with_visibility_timeout(Duration::from_millis(timeout.unsigned_abs()))
        .with_lease_expires_at(millis::to_time(now.saturating_add(timeout)))
    }

    /// In whole milliseconds, as a lease takes it.
    fn visibility_timeout(&self) -> Duration {
        let millis = millis::ceil(self.sent.visibility_timeout_or_default());
        Duration::from_millis(millis.unsigned_abs())
    }

    /// Whether this is the last delivery, and nothing has settled it.
    pub(crate) fn accepts(&self, presented: &str) -> bool {
        let mut buffer = Uuid::encode_buffer();
        self.delivery
            .is_some_and(|delivery| *presented == *delivery.simple().encode_lower(&mut buffer))
    }

    pub(crate) fn peeked(&self, now: Millis) -> PeekedMessage {
        PeekedMessage::new(
            self.sent.id.clone(),
            self.sent.payload.clone(),
            match self.delivery {
                _ if self.position.ready_at <= now => MessageState::Ready,
                Some(_) => MessageState::Leased,
                None => MessageState::Delayed,
            },
        )
        .with_headers(self.sent.headers.clone())
        .with_attempts(self.attempts)
        .with_max_attempts(self.sent.max_attempts_or_default())
        .with_visibility_timeout(self.visibility_timeout())
        .with_enqueued_at(millis::to_time(self.enqueued_at))
        .with_ready_at(millis::to_time(self.position.ready_at))
    }
}

impl DeadMessage {
    pub(crate) fn listed(&self) -> DeadLetter {
        DeadLetter::new(
            self.message.sent.id.clone(),
            self.message.sent.payload.clone(),
            self.reason.clone(),
        )
        .with_headers(self.message.sent.headers.clone())
        .with_attempts(self.message.attempts)
        .with_max_attempts(self.message.sent.max_attempts_or_default())
        .with_visibility_timeout(self.message.visibility_timeout())
        .with_enqueued_at(millis::to_time(self.message.enqueued_at))
        .with_died_at(millis::to_time(self.died_at))
    }
}

/// A receipt names the delivery and the message.
fn receipt(delivery: Uuid, id: &MessageId) -> Receipt {
    let mut buffer = Uuid::encode_buffer();
    let delivery = delivery.simple().encode_lower(&mut buffer);
    Receipt::new([delivery, "-", id.as_str()].concat())
}
