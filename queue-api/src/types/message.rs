//! What a sender hands in.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use crate::MessageId;

/// Text attributes that travel beside the payload, such as a content type or a trace context.
pub type Headers = BTreeMap<String, String>;

/// A message to be enqueued.
///
/// The id is fixed when the value is made, so a message whose enqueue failed can be enqueued
/// again without being stored twice.
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
/// assert_eq!(message.max_attempts, 3);
/// # Ok::<(), queue_api::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Identifies the message in its queue; generated unless the sender chooses one.
    pub id: MessageId,
    /// Any bytes, also none.
    pub payload: Bytes,
    /// Text attributes; keys are not empty.
    pub headers: Headers,
    /// How long a lease of this message lasts unless the lease call says otherwise.
    pub visibility_timeout: Duration,
    /// How long after the enqueue the message becomes ready.
    pub delay: Duration,
    /// How often the message is delivered before it becomes a dead letter; at least 1.
    pub max_attempts: u32,
}

impl NewMessage {
    /// The visibility timeout of a message that sets none: that of Amazon SQS, so that
    /// nobody who moves here is surprised.
    pub const DEFAULT_VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

    /// The attempts of a message that sets none. A message that kills its worker must stop
    /// some time, and 25 is what River settled on.
    pub const DEFAULT_MAX_ATTEMPTS: u32 = 25;

    /// A message with a generated id and the defaults above, ready at once.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            id: MessageId::generate(),
            payload: payload.into(),
            headers: Headers::new(),
            visibility_timeout: Self::DEFAULT_VISIBILITY_TIMEOUT,
            delay: Duration::ZERO,
            max_attempts: Self::DEFAULT_MAX_ATTEMPTS,
        }
    }

    /// Chooses the id.
    #[must_use]
    pub fn with_id(mut self, id: MessageId) -> Self {
        self.id = id;
        self
    }

    /// Adds a header, replacing one of the same name.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Chooses how long a lease lasts.
    #[must_use]
    pub fn with_visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = timeout;
        self
    }

    /// Holds the message back for `delay` after the enqueue.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Chooses how often the message is delivered at most.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// What the headers weigh against [`Limits::max_header_bytes`](crate::Limits): the bytes
    /// of all names and values.
    pub fn header_bytes(&self) -> usize {
        self.headers.iter().map(|(k, v)| k.len() + v.len()).sum()
    }
}

/// What became of an enqueued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnqueueOutcome {
    /// The queue holds the message now.
    Stored,
    /// The queue held a message of that id already, in whatever state; it is untouched.
    Duplicate,
}
