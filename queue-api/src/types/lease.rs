//! Leases: the request, the delivery, and the changes to it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{Headers, MessageId, NewMessage, types::plain_text};
use bytes::Bytes;

/// The parameters of a lease call.
///
/// ```
/// use std::time::Duration;
/// use queue_api::LeaseOptions;
///
/// let options = LeaseOptions::new(100).with_visibility_timeout(Duration::from_secs(5));
/// assert_eq!(options.max_messages(), 100);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    max_messages: usize,
    visibility_timeout: Option<Duration>,
}

impl LeaseOptions {
    /// Requests at most `max_messages`, each leased for its own visibility timeout.
    pub fn new(max_messages: usize) -> Self {
        Self {
            max_messages,
            visibility_timeout: None,
        }
    }

    /// Leases every message for `timeout` instead of its own visibility timeout.
    ///
    /// With a timeout of 0 the messages are ready again at once. Each delivery counts as an attempt.
    /// Its receipt works until another delivery supersedes it.
    #[must_use]
    pub fn with_visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = Some(timeout);
        self
    }

    /// Sets the largest number of messages.
    #[must_use]
    pub fn with_max_messages(mut self, max_messages: usize) -> Self {
        self.max_messages = max_messages;
        self
    }

    /// The largest number of messages.
    pub fn max_messages(&self) -> usize {
        self.max_messages
    }

    /// The visibility timeout for all messages, if set.
    pub fn visibility_timeout(&self) -> Option<Duration> {
        self.visibility_timeout
    }
}

/// A leased message.
///
/// A backend makes one with [`Delivery::new`], and sets what is not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The message's id.
    pub id: MessageId,
    /// The bytes that were enqueued.
    pub payload: Bytes,
    /// The headers that were enqueued.
    pub headers: Headers,
    /// Delivery number, from 1.
    pub attempt: u32,
    /// The time of the enqueue, by the backend's clock, in whole milliseconds.
    pub enqueued_at: SystemTime,
    /// The largest number of deliveries. If `attempt` has reached it, this is the last one.
    pub max_attempts: u32,
    /// How long the lease lasts, in whole milliseconds. A consumer can measure it on its own
    /// clock to know when to extend.
    pub visibility_timeout: Duration,
    /// When the lease expires, by the backend's clock, in whole milliseconds.
    pub lease_expires_at: SystemTime,
    /// Identifies this lease in an ack or a change.
    pub receipt: Receipt,
}

impl Delivery {
    /// The first delivery of a message without headers and with the default settings. Both times
    /// are the Unix epoch.
    pub fn new(id: MessageId, payload: impl Into<Bytes>, receipt: Receipt) -> Self {
        Self {
            id,
            payload: payload.into(),
            headers: Headers::new(),
            attempt: 1,
            enqueued_at: SystemTime::UNIX_EPOCH,
            max_attempts: NewMessage::DEFAULT_MAX_ATTEMPTS,
            visibility_timeout: NewMessage::DEFAULT_VISIBILITY_TIMEOUT,
            lease_expires_at: SystemTime::UNIX_EPOCH,
            receipt,
        }
    }
}

setters!(Delivery {
    with_headers headers: Headers,
    with_attempt attempt: u32,
    with_enqueued_at enqueued_at: SystemTime,
    with_max_attempts max_attempts: u32,
    with_visibility_timeout visibility_timeout: Duration,
    with_lease_expires_at lease_expires_at: SystemTime,
});

/// Identifies one delivery of a message. Every delivery has a new receipt.
///
/// It is text without control characters. You can log it, compare it, or send it to another
/// process that acks the message.
///
/// ```
/// use queue_api::Receipt;
///
/// let sent = Receipt::new("4f1c.17").to_string();
/// assert_eq!(Receipt::new(sent), Receipt::new("4f1c.17"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Receipt(Arc<str>);

plain_text!(
    Receipt,
    "Wraps the text of a receipt. If the backend did not create this receipt, every use of it is\n\
     [`LeaseOutcome::Lost`]."
);

/// The result of an ack or a change of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a lost receipt means that another consumer may have the message"]
pub enum LeaseOutcome {
    /// It took effect.
    Applied,
    /// The receipt is superseded, settled or unknown. Nothing changed.
    Lost,
}

impl LeaseOutcome {
    /// Whether it took effect.
    pub fn is_applied(self) -> bool {
        self == Self::Applied
    }
}

/// A change to one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseChange {
    /// The lease to change.
    pub receipt: Receipt,
    /// What to do with it.
    pub action: LeaseAction,
}

/// The action of a [`LeaseChange`]. All but [`Extend`](LeaseAction::Extend) settle the receipt.
///
/// The enum is exhaustive: a new action is a duty of every backend, and the compiler tells its
/// author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAction {
    /// Sets the expiry to now + this duration, whether that is later or earlier than before. With 0
    /// the message is ready at once, and the receipt works until another delivery supersedes it.
    Extend(Duration),
    /// Reports a failed attempt. The message becomes ready again after `delay`.
    Nack {
        /// The time until the message becomes ready.
        delay: Duration,
    },
    /// Releases the lease. The message is ready at once, and the attempt does not count.
    Release,
    /// Makes the message a dead letter.
    DeadLetter {
        /// Why, for the operator; at most [`MAX_REASON_BYTES`] bytes.
        reason: String,
    },
}

/// The longest reason of a dead letter, in bytes.
pub const MAX_REASON_BYTES: usize = 4096;

impl LeaseChange {
    /// See [`LeaseAction::Extend`].
    pub fn extend(receipt: Receipt, by: Duration) -> Self {
        let action = LeaseAction::Extend(by);
        Self { receipt, action }
    }

    /// See [`LeaseAction::Nack`].
    pub fn nack(receipt: Receipt, delay: Duration) -> Self {
        let action = LeaseAction::Nack { delay };
        Self { receipt, action }
    }

    /// See [`LeaseAction::Release`].
    pub fn release(receipt: Receipt) -> Self {
        let action = LeaseAction::Release;
        Self { receipt, action }
    }

    /// See [`LeaseAction::DeadLetter`].
    pub fn dead_letter(receipt: Receipt, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let action = LeaseAction::DeadLetter { reason };
        Self { receipt, action }
    }
}
