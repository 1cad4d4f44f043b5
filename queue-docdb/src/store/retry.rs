//! Deadlines and retries: a call retries until its operation timeout, with jitter.
//!
//! The driver's retries are off. DocumentDB before 8.0.2 refuses retryable writes, and the driver
//! does not know what the first try did.

use std::{future::IntoFuture, time::Duration};

use tokio::time::Instant;

use crate::store::{
    error::{Limit, StoreError},
    monotonic::{elapsed, monotonic_now},
    pause::{jittered, real_time},
};

/// The longest pause before the second try.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause before a later try. An election takes seconds, and a longer pause would only
/// add to that.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The longest time that a call waits: about a year, so that adding it to a time cannot overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The part of the operation timeout that a silent connection costs, if the command may be sent
/// again. Load balancers and NAT gateways forget idle connections without a word.
const SILENT_PART: u32 = 3;

/// Tokio counts timers in milliseconds.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(100);

/// When a call of the backend must end, whatever commands it sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
    /// The limit of the whole call, for error texts.
    of_call: Limit,
    /// When it began, by a clock that cannot be paused.
    began: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        Self {
            at: Instant::now() + timeout,
            timeout,
            of_call: Limit {
                after: timeout,
                is_runtime_doubtful: false,
            },
            began: monotonic_now(),
        }
    }

    /// The same, of a call of a backend whose runtime may not be running.
    pub(crate) fn in_doubtful_runtime(mut self, is_doubtful: bool) -> Self {
        self.of_call.is_runtime_doubtful = is_doubtful;
        self
    }

    /// The deadline of another step of the same call.
    pub(crate) fn again(self) -> Self {
        Self::after(self.of_call.after).in_doubtful_runtime(self.of_call.is_runtime_doubtful)
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
            Err(_) => Err(self.timed_out()),
        }
    }

    /// The error when the time has passed.
    pub(crate) fn timed_out(self) -> StoreError {
        match self.is_ahead_of_real_time() {
            true => StoreError::PausedClock,
            false => StoreError::TimedOut(self.of_call),
        }
    }

    /// Whether tokio's clock has jumped. A paused one does as soon as all tasks wait.
    fn is_ahead_of_real_time(self) -> bool {
        let passed = self.timeout.saturating_sub(self.left());
        passed > elapsed(self.began) * 2 + CLOCK_TOLERANCE
    }

    /// The time that the whole call has.
    pub(crate) fn of_call(self) -> Duration {
        self.of_call.after
    }

    /// The same deadline, or an earlier one after `time`.
    pub(crate) fn at_most(self, time: Duration) -> Self {
        Self {
            of_call: self.of_call,
            ..Self::after(time.min(self.left()))
        }
    }

    /// The same deadline, or that of a command which may be sent again on another connection.
    pub(crate) fn of_first_try(self) -> Self {
        self.at_most(self.timeout / SILENT_PART)
    }

    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Pauses before another try after other calls have changed the same messages first.
    ///
    /// # Errors
    /// No time is left.
    pub(crate) async fn contended(self) -> Result<(), StoreError> {
        let pause = jittered(FIRST_PAUSE);
        if self.left() <= pause {
            return Err(StoreError::Uncertain);
        }
        real_time(Instant::now() + pause).await;
        Ok(())
    }

    pub(crate) fn retries(self) -> Retries {
        Retries {
            deadline: self,
            longest: FIRST_PAUSE,
            last: None,
            has_timed_out: false,
        }
    }
}

/// The tries of one command.
#[derive(Debug)]
pub(crate) struct Retries {
    deadline: Deadline,
    longest: Duration,
    last: Option<StoreError>,
    /// Whether a try met a connection that is silent.
    has_timed_out: bool,
}

impl Retries {
    /// The driver's answer to a command that may be sent again after any error.
    pub(crate) async fn run<T>(
        &self,
        call: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        // Only the first silence is cut short: a server that is slow may need the rest.
        let deadline = match self.has_timed_out {
            true => self.deadline,
            false => self.deadline.of_first_try(),
        };
        deadline.run(call).await
    }

    /// Pauses before the next try. After a silence it does not: the next try has another connection.
    ///
    /// # Errors
    /// The error of the call: `error` is not transient, or no time is left. If the last try timed
    /// out, it is the error of the try before, which says more.
    pub(crate) async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        if matches!(error, StoreError::TimedOut(_)) {
            if self.has_timed_out || self.deadline.left().is_zero() {
                return Err(self.last.take().unwrap_or(error));
            }
            self.has_timed_out = true;
            self.last
                .get_or_insert(StoreError::TimedOut(self.deadline.of_call));
            return Ok(());
        }
        if error.is_transient() && self.deadline.is_ahead_of_real_time() {
            return Err(StoreError::PausedClock);
        }
        let pause = jittered(self.longest);
        if !error.is_transient() || self.deadline.left() <= pause {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "retrying");
        self.last = Some(error);
        real_time(Instant::now() + pause).await;
        self.longest = (self.longest * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// The same for a command that may be sent again only after a silence. A later error may then be
    /// due to the first try, so the call's error is the silence.
    pub(crate) async fn after_silence(&mut self, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::TimedOut(_) => self.after(error).await,
            error => Err(self.last.take().unwrap_or(error)),
        }
    }

    /// The error of the last try, for a call that must not be retried.
    pub(crate) fn into_last(self) -> StoreError {
        self.last.unwrap_or(StoreError::Uncertain)
    }
}
