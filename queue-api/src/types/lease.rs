//! What a consumer is given, and what it says back.

use std::{fmt, sync::Arc, time::Duration, time::SystemTime};

use bytes::Bytes;

use crate::{Headers, MessageId};

/// What a lease call asks for.
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
    /// Asks for at most `max_messages`, each for its own visibility timeout.
    pub fn new(max_messages: usize) -> Self {
        Self {
            max_messages,
            visibility_timeout: None,
        }
    }

    /// Leases every message for `timeout` instead of its own visibility timeout.
    #[must_use]
    pub fn with_visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = Some(timeout);
        self
    }

    /// The same wishes for another number of messages.
    #[must_use]
    pub fn with_max_messages(mut self, max_messages: usize) -> Self {
        self.max_messages = max_messages;
        self
    }

    /// How many messages at most.
    pub fn max_messages(&self) -> usize {
        self.max_messages
    }

    /// What overrides the messages' own visibility timeouts, if anything does.
    pub fn visibility_timeout(&self) -> Option<Duration> {
        self.visibility_timeout
    }
}

/// A message in somebody's hands, for as long as its lease runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message's id.
    pub id: MessageId,
    /// The bytes that were enqueued.
    pub payload: Bytes,
    /// The headers that were enqueued.
    pub headers: Headers,
    /// Which delivery of the message this is, counted from 1.
    pub attempt: u32,
    /// When the message was enqueued, by the backend's clock, in whole milliseconds.
    pub enqueued_at: SystemTime,
    /// How often it is delivered at most: when this is the last time, whoever gives it up may as
    /// well say why.
    pub max_attempts: u32,
    /// How long the lease lasts, in whole milliseconds: what to renew it by, on whatever clock
    /// the consumer has.
    pub visibility_timeout: Duration,
    /// When the lease runs out, by the backend's clock, in whole milliseconds.
    pub lease_expires_at: SystemTime,
    /// What acks or changes this lease.
    pub receipt: Receipt,
}

/// The proof of one delivery: opaque, new at every delivery, good for one settlement.
///
/// It is text without control characters, so it can be logged, compared, and sent to another
/// process that is to settle the lease.
///
/// ```
/// use queue_api::Receipt;
///
/// let sent = Receipt::new("4f1c.17").to_string();
/// assert_eq!(Receipt::new(sent), Receipt::new("4f1c.17"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Receipt(Arc<str>);

impl Receipt {
    /// Wraps a backend's text. One that the backend never gave out is
    /// [`LeaseOutcome::Lost`] wherever it is used.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for the backend that made it and for sending it elsewhere.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({})", self.0)
    }
}

/// What became of an ack or a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseOutcome {
    /// It took effect.
    Applied,
    /// The receipt is superseded, settled or unknown; nothing was changed.
    Lost,
}

/// A change to one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseChange {
    /// Which lease.
    pub receipt: Receipt,
    /// What is to become of it.
    pub action: LeaseAction,
}

/// What a [`LeaseChange`] does. All but [`Extend`](LeaseAction::Extend) settle the receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAction {
    /// Moves the expiry to now + this, be that later or earlier than it was.
    Extend(Duration),
    /// Gives the message up as failed: it is ready again after `delay`.
    Nack {
        /// How long the message is held back.
        delay: Duration,
    },
    /// Gives the message back unprocessed: it is ready at once, and the attempt does not
    /// count.
    Release,
    /// Makes the message a dead letter.
    DeadLetter {
        /// Why, for whoever looks after the queue; at most [`MAX_REASON_BYTES`] bytes.
        reason: String,
    },
}

/// The longest reason of a dead letter, in bytes.
pub const MAX_REASON_BYTES: usize = 4096;

impl LeaseChange {
    /// See [`LeaseAction::Extend`].
    pub fn extend(receipt: Receipt, by: Duration) -> Self {
        Self {
            receipt,
            action: LeaseAction::Extend(by),
        }
    }

    /// See [`LeaseAction::Nack`].
    pub fn nack(receipt: Receipt, delay: Duration) -> Self {
        Self {
            receipt,
            action: LeaseAction::Nack { delay },
        }
    }

    /// See [`LeaseAction::Release`].
    pub fn release(receipt: Receipt) -> Self {
        Self {
            receipt,
            action: LeaseAction::Release,
        }
    }

    /// See [`LeaseAction::DeadLetter`].
    pub fn dead_letter(receipt: Receipt, reason: impl Into<String>) -> Self {
        Self {
            receipt,
            action: LeaseAction::DeadLetter {
                reason: reason.into(),
            },
        }
    }
}
