//! Retries: ours alone, bounded by the operation timeout of the call, with jitter.
//!
//! The driver's own are off: DocumentDB before 8.0.2 refuses retryable writes, and a retry
//! that does not know what the first try did would tell the caller something wrong.

use std::{future::IntoFuture, time::Duration};

use tokio::time::Instant;

use crate::error::StoreError;

/// How long to pause before the second try, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// How long before any later one. An election takes seconds; whoever looks again much later
/// than it is over only adds to the stall.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// When a call of the backend has to be done, whatever it consists of.
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

    /// The driver's answer, or the news that the call's time is up.
    ///
    /// Dropping the driver's future is safe: it closes the connection that waits for the answer.
    pub(crate) async fn run<T>(
        self,
        call: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout_at(self.at, call.into_future()).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(StoreError::TimedOut(self.timeout)),
        }
    }

    /// The same, or sooner.
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
    /// Waits until it is time for another try.
    ///
    /// # Errors
    /// What the call ends with: `error` will not pass, or there is no time left. A try that ran
    /// out of time says less than the one before, so then it is the error of that one.
    pub(crate) async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        if matches!(error, StoreError::TimedOut(_)) {
            return Err(self.last.take().unwrap_or(error));
        }
        let pause = self.longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        if !error.is_passing() || self.deadline.left() <= pause {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "trying again");
        self.last = Some(error);
        real_time(pause).await;
        self.longest = (self.longest * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// The error that the last try ended with, for a call that cannot be tried again.
    pub(crate) fn into_last(self) -> StoreError {
        self.last.unwrap_or(StoreError::Uncertain)
    }
}

/// The database recovers in real time, whatever clock the backend was given.
#[allow(clippy::disallowed_methods)]
async fn real_time(pause: Duration) {
    tokio::time::sleep(pause).await;
}
