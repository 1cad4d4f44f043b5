//! What becomes of a message whose handler failed.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use super::backoff::{doubled, jittered};

/// Why a handler did not handle its message, and what it wants to be done about it.
///
/// Every error that a handler is likely to have becomes one by `?`, and is retried as the
/// worker's [`RetryPolicy`] says; [`retry_after`](Failure::retry_after) and
/// [`give_up`](Failure::give_up) are for the handler that knows better.
///
/// ```
/// use std::time::Duration;
/// use queue_api::consumer::Failure;
///
/// fn charge(amount: &str) -> Result<(), Failure> {
///     let amount: u32 = amount.parse()?; // retried by the policy
///     if amount == 0 {
///         return Err(Failure::give_up("nothing to charge")); // a dead letter
///     }
///     if amount > 1000 {
///         return Err(Failure::retry_after(Duration::from_secs(3600), "over today's limit"));
///     }
///     Ok(())
/// }
/// assert_eq!(charge("0").unwrap_err().to_string(), "nothing to charge");
/// ```
pub struct Failure {
    pub(super) wish: Disposition,
    pub(super) error: Box<dyn StdError + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    AsThePolicySays,
    RetryAfter(Duration),
    GiveUp,
}

impl Failure {
    /// The message is to be tried again when the worker's [`RetryPolicy`] says.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            wish: Disposition::AsThePolicySays,
            error: error.into(),
        }
    }

    /// The message is to be tried again after `delay`, unless that was the last attempt.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            wish: Disposition::RetryAfter(delay),
            error: error.into(),
        }
    }

    /// The message is to be a dead letter, with this reason.
    pub fn give_up(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            wish: Disposition::GiveUp,
            error: reason.into(),
        }
    }
}

/// Like `anyhow::Error`, this is no [`std::error::Error`] itself, so that everything which is one
/// can become it.
impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// The error and those below it, in one line: it becomes the reason of a dead letter.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut below = self.error.source();
        while let Some(error) = below {
            write!(f, ": {error}")?;
            below = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("wish", &self.wish)
            .field("error", &self.error)
            .finish()
    }
}

/// What a [`RetryPolicy`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The message is ready again after this time, or the longest delay that the backend allows.
    After(Duration),
    /// The message becomes a dead letter, with the error as the reason.
    GiveUp,
}

/// When a message whose handler failed is tried again.
///
/// Whatever a policy says, the last attempt that a message's `max_attempts` allows is the last:
/// when it fails, the worker dead-letters the message at once, with the error as the reason.
///
/// ```
/// use std::time::Duration;
/// use queue_api::consumer::{Retry, RetryPolicy};
///
/// let hourly = RetryPolicy::custom(|attempt, _error| match attempt {
///     1..=24 => Retry::After(Duration::from_secs(3600)),
///     _ => Retry::GiveUp,
/// });
/// ```
#[derive(Clone)]
pub struct RetryPolicy(Arc<Decide>);

type Decide = dyn Fn(u32, &Failure) -> Retry + Send + Sync;

impl RetryPolicy {
    /// Waits `first` after the first attempt and twice as long after each further one, at most
    /// `most`; each time between a half of that and the whole, by chance, so that messages which
    /// failed together do not come back together.
    pub fn exponential(first: Duration, most: Duration) -> Self {
        Self::custom(move |attempt, _| {
            let pause = doubled(first, attempt.saturating_sub(1)).min(most);
            Retry::After(jittered(pause))
        })
    }

    /// Decides by the attempt that has failed, counted from 1, and by its error. It is asked when
    /// the handler has no wish of its own.
    pub fn custom(decide: impl Fn(u32, &Failure) -> Retry + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// What becomes of a message.
    pub(super) fn decide(&self, attempt: u32, max_attempts: u32, failure: &Failure) -> Retry {
        if attempt >= max_attempts {
            return Retry::GiveUp;
        }
        match failure.wish {
            Disposition::AsThePolicySays => (self.0)(attempt, failure),
            Disposition::RetryAfter(delay) => Retry::After(delay),
            Disposition::GiveUp => Retry::GiveUp,
        }
    }
}

/// From a second to ten minutes.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(600))
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetryPolicy")
    }
}
