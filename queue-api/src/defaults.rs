//! What applies to messages that do not set it.

use std::time::Duration;

use crate::{Error, NewMessage, Queue, Result, types::check_attempts};

/// The defaults of a handle, for the settings of a [`NewMessage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    visibility_timeout: Option<Duration>,
    delay: Option<Duration>,
    max_attempts: Option<u32>,
}

impl Defaults {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn fill(&self, message: &mut NewMessage) {
        message.visibility_timeout = message.visibility_timeout.or(self.visibility_timeout);
        message.delay = message.delay.or(self.delay);
        message.max_attempts = message.max_attempts.or(self.max_attempts);
    }
}

/// Defaults for messages that this handle enqueues. A message that sets a value keeps it. Another
/// handle on the same queue has defaults of its own, because nothing is stored for a queue.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use queue_api::{NewMessage, Queue};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "reports")?
///     .with_default_visibility_timeout(Duration::from_secs(300))?
///     .with_default_max_attempts(3)?;
/// queue.enqueue(&NewMessage::new("2041")).await?;
/// queue.enqueue(&NewMessage::new("2042").with_max_attempts(1)).await?;
///
/// let first = queue.lease().await?.expect("two are ready");
/// assert_eq!((first.max_attempts, first.visibility_timeout.as_secs()), (3, 300));
/// let second = queue.lease().await?.expect("one is ready");
/// assert_eq!((second.max_attempts, second.visibility_timeout.as_secs()), (1, 300));
/// # Ok(())
/// # }
/// ```
impl Queue {
    /// How long a lease lasts. Without this, [`NewMessage::DEFAULT_VISIBILITY_TIMEOUT`] applies.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `timeout` exceeds the backend's limits.
    pub fn with_default_visibility_timeout(mut self, timeout: Duration) -> Result<Self> {
        let checked = self.limits().check_visibility(timeout);
        checked.map_err(|wrong| Error::invalid_value("queue defaults", wrong))?;
        self.defaults.visibility_timeout = Some(timeout);
        Ok(self)
    }

    /// The time from the enqueue until a message becomes ready. Without this, messages are ready at
    /// once.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `delay` exceeds the backend's limits.
    pub fn with_default_delay(mut self, delay: Duration) -> Result<Self> {
        let checked = self.limits().check_delay(delay);
        checked.map_err(|wrong| Error::invalid_value("queue defaults", wrong))?;
        self.defaults.delay = Some(delay);
        Ok(self)
    }

    /// The number of deliveries after which a message becomes a dead letter. Without this,
    /// [`NewMessage::DEFAULT_MAX_ATTEMPTS`] applies.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `attempts` is 0.
    pub fn with_default_max_attempts(mut self, attempts: u32) -> Result<Self> {
        let checked = check_attempts(attempts);
        checked.map_err(|wrong| Error::invalid_value("queue defaults", wrong))?;
        self.defaults.max_attempts = Some(attempts);
        Ok(self)
    }
}
