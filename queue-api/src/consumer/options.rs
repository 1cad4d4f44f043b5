//! Options of a listener.

use std::{fmt, sync::Arc, time::Duration};

use crate::{Clock, Error, TokioClock, catch_panic::isolated, clock::GuardedClock};

type ErrorHook = Arc<dyn Fn(&Error) + Send + Sync>;

/// Options of [`Queue::listen`](crate::Queue::listen).
///
/// ```
/// use std::time::Duration;
/// use queue_api::consumer::ListenOptions;
///
/// let options = ListenOptions::new(8)
///     .with_visibility_timeout(Duration::from_secs(60))
///     .with_max_lease_time(Duration::from_secs(3600))
///     .with_error_hook(|error| eprintln!("store error: {error}"));
/// assert_eq!(options.concurrency(), 8);
/// assert_eq!(options.visibility_timeout(), Some(Duration::from_secs(60)));
/// assert_eq!(options.max_lease_time(), Duration::from_secs(3600));
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
    /// Default of [`with_max_lease_time`](ListenOptions::with_max_lease_time): 12 hours, the longest
    /// time that a message may be in flight in Amazon SQS.
    pub const DEFAULT_MAX_LEASE_TIME: Duration = Duration::from_secs(12 * 3600);

    /// At most `concurrency` messages are worked on at a time.
    ///
    /// A lease whose settlement is in flight does not count, so the next messages are claimed
    /// meanwhile. The listener never holds more than twice `concurrency` leases.
    pub fn new(concurrency: usize) -> Self {
        Self {
            concurrency,
            visibility_timeout: None,
            max_lease_time: Self::DEFAULT_MAX_LEASE_TIME,
            clock: Arc::new(TokioClock::new()),
            error_hook: None,
        }
    }

    /// Leases every message for `timeout` instead of its own visibility timeout.
    ///
    /// Leases are renewed, so this does not limit how long a handler may take. It is the time after
    /// which other consumers get the messages of a crashed process, and the longest store outage
    /// that a lease survives. It must be longer than 0. A message whose own timeout is 0 is extended
    /// at once, as every lease is that is too short for the round trips to the store.
    #[must_use]
    pub fn with_visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = Some(timeout);
        self
    }

    /// Renews a lease for at most `time` after it was claimed, so that a handler that hangs does not
    /// keep its message forever.
    #[must_use]
    pub fn with_max_lease_time(mut self, time: Duration) -> Self {
        self.max_lease_time = time;
        self
    }

    /// Uses `clock` instead of tokio's. Only differences matter, so the clock may be wrong by any
    /// amount, but it should not jump. While it panics, tokio's clock is used instead.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Arc::new(GuardedClock::new(clock));
        self
    }

    /// Calls `hook` with each error of the store. The listener's task waits for the hook, so it
    /// should be quick.
    #[must_use]
    pub fn with_error_hook(mut self, hook: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.error_hook = Some(Arc::new(hook));
        self
    }

    /// Changes the concurrency.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// The most messages that are worked on at a time.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// The visibility timeout for all messages, if set.
    pub fn visibility_timeout(&self) -> Option<Duration> {
        self.visibility_timeout
    }

    /// How long a lease is renewed at most.
    pub fn max_lease_time(&self) -> Duration {
        self.max_lease_time
    }

    /// A panic in the hook is caught and logged. Leases are not affected.
    pub(super) fn call_hook(&self, error: &Error) {
        if let Some(hook) = &self.error_hook {
            isolated("the error hook of a listener", || hook(error));
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
