//! Deadlines and retries: a call retries until its operation timeout, with jitter.
//!
//! The driver's retries are off. DocumentDB before 8.0.2 refuses retryable writes, and the driver
//! does not know what the first try did.

use std::{future::IntoFuture, time::Duration};

use tokio::time::Instant;

use crate::error::StoreError;

/// The longest pause before the second try.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause before a later try. An election takes seconds, and a longer pause would only
/// add to that.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The longest time that a call waits: about a year, so that adding it to a time cannot overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// When a call of the backend must end, whatever commands it sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        Self {
            at: Instant::now() + timeout,
            timeout,
        }
    }

    /// The driver's answer, or [`StoreError::TimedOut`].
    ///
    /// Dropping the driver's future is safe: it closes the connection.
    pub(crate) async fn run<T>(
        self,
        call: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout_at(self.at, call.into_future()).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(StoreError::TimedOut(self.timeout)),
        }
    }

    /// The same deadline, or an earlier one after `time`.
    pub(crate) fn at_most(self, time: Duration) -> Self {
        let timeout = time.min(self.left());
        Self::after(timeout)
    }

    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn retries(self) -> Retries {
        Retries {
            deadline: self,
            longest: FIRST_PAUSE,
            last: None,
        }
    }
}

/// The tries of one command.
#[derive(Debug)]
pub(crate) struct Retries {
    deadline: Deadline,
    longest: Duration,
    last: Option<StoreError>,
}

impl Retries {
    /// Pauses before the next try.
    ///
    /// # Errors
    /// The error of the call: `error` is not transient, or no time is left. If the last try timed
    /// out, it is the error of the try before, which says more.
    pub(crate) async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        if matches!(error, StoreError::TimedOut(_)) {
            return Err(self.last.take().unwrap_or(error));
        }
        let pause = self.longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        if !error.is_transient() || self.deadline.left() <= pause {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "retrying");
        self.last = Some(error);
        real_time(pause).await;
        self.longest = (self.longest * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// The error of the last try, for a call that must not be retried.
    pub(crate) fn into_last(self) -> StoreError {
        self.last.unwrap_or(StoreError::Uncertain)
    }
}

/// The database recovers in real time, not by the queue's clock.
#[allow(clippy::disallowed_methods)]
async fn real_time(pause: Duration) {
    tokio::time::sleep(pause).await;
}
