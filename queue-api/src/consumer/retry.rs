//! Retries of failed messages.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use super::backoff::{doubled, jittered};
use crate::{Delivery, types::write_causes};

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
    kind: FailureKind,
    error: Box<dyn StdError + Send + Sync>,
}

/// What a [`Failure`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The handler returned an error, and leaves the decision to the policy.
    ByPolicy,
    /// The handler returned an error, and wants a retry after this time.
    RetryAfter(Duration),
    /// The handler returned an error, and wants no retry.
    GiveUp,
    /// The payload does not decode. A newer version of the program may have sent it.
    Undecodable,
    /// The handler panicked. The error has the panic's message.
    Panicked,
    /// The handler exceeded the worker's [time limit](super::Worker::with_time_limit).
    TimedOut,
}

impl Failure {
    /// The worker's [`RetryPolicy`] decides whether and when to retry.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureKind::ByPolicy, error)
    }

    /// Retries after `delay`, unless this was the last attempt.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureKind::RetryAfter(delay), error)
    }

    /// Makes the message a dead letter with this reason.
    pub fn give_up(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureKind::GiveUp, reason)
    }

    /// A failure of any kind, for tests of a policy. In a handler, use the other functions.
    pub fn new(kind: FailureKind, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            error: error.into(),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The error: of the handler, or of the codec.
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
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
        if self.kind == FailureKind::Undecodable {
            f.write_str("the payload cannot be decoded: ")?;
        }
        write!(f, "{}", self.error)?;
        write_causes(f, &*self.error)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("kind", &self.kind)
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

/// An attempt that failed: what a [`RetryPolicy`] decides on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailedAttempt<'a> {
    /// The message, with the number of the attempt.
    pub delivery: &'a Delivery,
    /// Why it failed.
    pub failure: &'a Failure,
}

impl<'a> FailedAttempt<'a> {
    /// The attempt of `delivery` failed with `failure`.
    pub fn new(delivery: &'a Delivery, failure: &'a Failure) -> Self {
        Self { delivery, failure }
    }
}

/// Decides whether and when a failed message is retried.
///
/// A message is never retried beyond its `max_attempts`. If the last attempt fails, the worker makes
/// the message a dead letter at once, with the error as its reason.
///
/// A payload that does not decode is retried too. So while a new version is rolled out, old workers
/// leave its messages to the new ones. This policy gives up at once instead, and retries all other
/// failures as usual:
///
/// ```
/// use queue_api::consumer::{FailureKind, Retry, RetryPolicy};
///
/// let usual = RetryPolicy::default();
/// let policy = RetryPolicy::custom(move |failed| match failed.failure.kind() {
///     FailureKind::Undecodable => Retry::GiveUp,
///     _ => usual.decide(failed),
/// });
///
/// // A test of it:
/// use queue_api::{Delivery, MessageId, Receipt, consumer::{FailedAttempt, Failure}};
///
/// let delivery = Delivery::new(MessageId::generate(), "newer", Receipt::new("receipt"));
/// let failure = Failure::new(FailureKind::Undecodable, "unknown field");
/// assert_eq!(policy.decide(&FailedAttempt::new(&delivery, &failure)), Retry::GiveUp);
/// let failure = Failure::retry("busy");
/// assert_ne!(policy.decide(&FailedAttempt::new(&delivery, &failure)), Retry::GiveUp);
/// ```
#[derive(Clone)]
pub struct RetryPolicy(Arc<Decide>);

type Decide = dyn Fn(&FailedAttempt<'_>) -> Retry + Send + Sync;

impl RetryPolicy {
    /// Waits `first` after the first attempt and twice as long after each further one, at most
    /// `max`. Jitter takes off up to half, so messages that failed together are spread.
    pub fn exponential(first: Duration, max: Duration) -> Self {
        Self::custom(move |failed| {
            let pause = doubled(first, failed.delivery.attempt.saturating_sub(1)).min(max);
            Retry::After(jittered(pause))
        })
    }

    /// Calls `decide` with each failed attempt. It is not called after the last attempt, or if the
    /// handler itself decided.
    pub fn custom(decide: impl Fn(&FailedAttempt<'_>) -> Retry + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// What a worker with this policy does with the message.
    pub fn decide(&self, failed: &FailedAttempt<'_>) -> Retry {
        if failed.delivery.attempt >= failed.delivery.max_attempts {
            return Retry::GiveUp;
        }
        match failed.failure.kind {
            FailureKind::RetryAfter(delay) => Retry::After(delay),
            FailureKind::GiveUp => Retry::GiveUp,
            _ => (self.0)(failed),
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
