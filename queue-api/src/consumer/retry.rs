//! Retries of failed messages.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use super::backoff::{doubled, jittered};
use crate::types::write_causes;

/// Why a handler failed, and whether to retry.
///
/// `?` turns any error into a failure that the worker's [`RetryPolicy`] decides on. Use
/// [`retry_after`](Failure::retry_after) and [`give_up`](Failure::give_up) to decide in the handler.
///
/// ```
/// use std::time::Duration;
/// use queue_api::consumer::Failure;
///
/// fn charge(amount: &str) -> Result<(), Failure> {
///     let amount: u32 = amount.parse()?; // the policy decides
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
    disposition: Disposition,
    error: Box<dyn StdError + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disposition {
    ByPolicy,
    RetryAfter(Duration),
    GiveUp,
}

impl Failure {
    /// The worker's [`RetryPolicy`] decides whether and when to retry.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            disposition: Disposition::ByPolicy,
            error: error.into(),
        }
    }

    /// Retries after `delay`, unless this was the last attempt.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            disposition: Disposition::RetryAfter(delay),
            error: error.into(),
        }
    }

    /// Makes the message a dead letter with this reason.
    pub fn give_up(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            disposition: Disposition::GiveUp,
            error: reason.into(),
        }
    }
}

/// [`Failure`] does not implement [`std::error::Error`], so that every error converts to it, as with
/// `anyhow::Error`.
impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// The error and its sources, in one line. It becomes the reason of a dead letter.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        write_causes(f, &*self.error)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("disposition", &self.disposition)
            .field("error", &self.error)
            .finish()
    }
}

/// The decision of a [`RetryPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The message is ready again after this time, at most the backend's longest delay.
    After(Duration),
    /// The message becomes a dead letter, with the error as its reason.
    GiveUp,
}

/// Decides whether and when a failed message is retried.
///
/// A message is never retried beyond its `max_attempts`. If the last attempt fails, the worker makes
/// the message a dead letter at once, with the error as its reason.
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
    /// `max`. Jitter takes off up to half, so messages that failed together are spread.
    pub fn exponential(first: Duration, max: Duration) -> Self {
        Self::custom(move |attempt, _| {
            let pause = doubled(first, attempt.saturating_sub(1)).min(max);
            Retry::After(jittered(pause))
        })
    }

    /// Calls `decide` with the number of the failed attempt, from 1, and the error. It is not called
    /// if the handler itself decided.
    pub fn custom(decide: impl Fn(u32, &Failure) -> Retry + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    pub(super) fn decide(&self, attempt: u32, max_attempts: u32, failure: &Failure) -> Retry {
        if attempt >= max_attempts {
            return Retry::GiveUp;
        }
        match failure.disposition {
            Disposition::ByPolicy => (self.0)(attempt, failure),
            Disposition::RetryAfter(delay) => Retry::After(delay),
            Disposition::GiveUp => Retry::GiveUp,
        }
    }
}

/// Exponential, from 1 second to 10 minutes.
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
