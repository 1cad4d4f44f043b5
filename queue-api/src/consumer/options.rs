//! What a listener is told.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use crate::{Clock, Error, TokioClock};

type ErrorHook = Arc<dyn Fn(&Error) + Send + Sync>;

/// What [`Queue::listen`](crate::Queue::listen) is told.
///
/// ```
/// use std::time::Duration;
/// use queue_api::consumer::ListenOptions;
///
/// let options = ListenOptions::new(8)
///     .with_visibility_timeout(Duration::from_secs(60))
///     .with_max_lease_time(Duration::from_secs(3600))
///     .with_error_hook(|error| eprintln!("the store fails: {error}"));
/// assert_eq!(options.concurrency(), 8);
/// ```
#[derive(Clone)]
pub struct ListenOptions {
    pub(super) concurrency: usize,
    pub(super) visibility_timeout: Option<Duration>,
    pub(super) max_lease_time: Duration,
    pub(super) clock: Arc<dyn Clock>,
    error_hook: Option<ErrorHook>,
}

impl ListenOptions {
    /// For how long a lease is renewed unless the options say otherwise: 12 hours, which is as
    /// long as Amazon SQS lets a message be in flight.
    pub const DEFAULT_MAX_LEASE_TIME: Duration = Duration::from_secs(12 * 3600);

    /// Has at most `concurrency` messages worked on at a time. A lease whose settlement is on its way
    /// to the store does not count, so that the next messages are claimed meanwhile; in all there
    /// are at most twice as many.
    pub fn new(concurrency: usize) -> Self {
        Self {
            concurrency,
            visibility_timeout: None,
            max_lease_time: Self::DEFAULT_MAX_LEASE_TIME,
            clock: Arc::new(TokioClock::new()),
            error_hook: None,
        }
    }

    /// Leases every message for `timeout` instead of its own visibility timeout. As leases are
    /// renewed, this is not how long a handler may take but how soon others notice that this
    /// process is gone, and how long a failing store may keep it from renewing.
    #[must_use]
    pub fn with_visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = Some(timeout);
        self
    }

    /// Renews a lease for at most `time` after it was claimed, so that a handler which hangs
    /// forever does not keep its message forever.
    #[must_use]
    pub fn with_max_lease_time(mut self, time: Duration) -> Self {
        self.max_lease_time = time;
        self
    }

    /// Takes time from another clock than tokio's. Only differences are taken from it, so it may
    /// be off by any amount, but it should not jump.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Calls `hook` with every error of the store that the listener survives. It is called from
    /// the listener's task, which does nothing else meanwhile, so it should be quick.
    #[must_use]
    pub fn with_error_hook(mut self, hook: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.error_hook = Some(Arc::new(hook));
        self
    }

    /// The same wishes for another number of messages.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// How many messages are worked on at most.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Hands an error to the hook. A hook that panics has had its say; the leases are not to
    /// pay for it.
    pub(super) fn call_hook(&self, error: &Error) {
        if let Some(hook) = &self.error_hook
            && catch_unwind(AssertUnwindSafe(|| hook(error))).is_err()
        {
            tracing::error!("the error hook of a listener panicked");
        }
    }
}

impl fmt::Debug for ListenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenOptions")
            .field("concurrency", &self.concurrency)
            .field("visibility_timeout", &self.visibility_timeout)
            .field("max_lease_time", &self.max_lease_time)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}
