//! Messages to enqueue.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use crate::MessageId;

/// Text attributes beside the payload, such as a content type or a trace context.
pub type Headers = BTreeMap<String, String>;

/// A message to enqueue.
///
/// The id is set when the value is created. So you can repeat a failed enqueue of the same value,
/// and the message is stored once. After an ack, the same id is a new message.
///
/// For a setting that is `None`, the default of the [`Queue`](crate::Queue) handle applies, such as
/// [`with_default_delay`](crate::Queue::with_default_delay). If the handle has none either, the
/// default of this type applies.
///
/// ```
/// use std::time::Duration;
/// use queue_api::{MessageId, NewMessage};
///
/// let message = NewMessage::new("welcome, Ada")
///     .with_id(MessageId::new("welcome-ada")?)
///     .with_header("content-type", "text/plain")
///     .with_visibility_timeout(Duration::from_secs(90))
///     .with_delay(Duration::from_secs(5))
///     .with_max_attempts(3);
/// assert_eq!(message.payload, "welcome, Ada");
/// assert_eq!(message.max_attempts, Some(3));
/// # Ok::<(), queue_api::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewMessage {
    /// Identifies the message in its queue. Generated unless you set it.
    pub id: MessageId,
    /// Any bytes, or none.
    pub payload: Bytes,
    /// Text attributes. Names must not be empty.
    pub headers: Headers,
    /// How long a lease of this message lasts, unless the lease call sets another time. With 0 it is
    /// ready again at once.
    pub visibility_timeout: Option<Duration>,
    /// The time from the enqueue until the message becomes ready.
    pub delay: Option<Duration>,
    /// The number of deliveries after which the message becomes a dead letter; at least 1.
    pub max_attempts: Option<u32>,
}

impl NewMessage {
    /// The default visibility timeout. It is the default of Amazon SQS.
    pub const DEFAULT_VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

    /// The default delay: none.
    pub const DEFAULT_DELAY: Duration = Duration::ZERO;

    /// The default for `max_attempts`. It is the default of River.
    pub const DEFAULT_MAX_ATTEMPTS: u32 = 25;

    /// A message with a generated id. It sets nothing else.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            id: MessageId::generate(),
            payload: payload.into(),
            headers: Headers::new(),
            visibility_timeout: None,
            delay: None,
            max_attempts: None,
        }
    }

    /// Sets the payload.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Sets the id.
    #[must_use]
    pub fn with_id(mut self, id: MessageId) -> Self {
        self.id = id;
        self
    }

    /// Sets a header. Replaces an earlier value of the same name.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets how long a lease lasts.
    #[must_use]
    pub fn with_visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = Some(timeout);
        self
    }

    /// Sets the time from the enqueue until the message becomes ready.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Sets the number of deliveries after which the message becomes a dead letter.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// The visibility timeout, as a backend stores it.
    pub fn visibility_timeout_or_default(&self) -> Duration {
        self.visibility_timeout
            .unwrap_or(Self::DEFAULT_VISIBILITY_TIMEOUT)
    }

    /// The delay, as a backend stores it.
    pub fn delay_or_default(&self) -> Duration {
        self.delay.unwrap_or(Self::DEFAULT_DELAY)
    }

    /// The number of deliveries, as a backend stores it.
    pub fn max_attempts_or_default(&self) -> u32 {
        self.max_attempts.unwrap_or(Self::DEFAULT_MAX_ATTEMPTS)
    }

    /// The total bytes of all header names and values. This counts against
    /// [`Limits::max_header_bytes`](crate::Limits).
    pub fn header_bytes(&self) -> usize {
        self.headers.iter().map(|(k, v)| k.len() + v.len()).sum()
    }
}

/// The result of enqueueing one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnqueueOutcome {
    /// The message is stored.
    Stored,
    /// The queue already had a message with this id, in any state. That message is unchanged.
    Duplicate,
}
