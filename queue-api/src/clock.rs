//! Time, injected where a backend is built.
//!
//! This is the one module that reads the machine's clocks and sleeps.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};

use crate::millis;

/// A backend's source of time.
///
/// A backend takes all its times from the clock that it was built with, and waits through it,
/// so whoever owns the clock owns time. What is no matter of the queue's time, such as how often
/// to look whether another process has changed the store, passes in real time all the same; a
/// clock that a test moves says nothing about it.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> SystemTime;

    /// Returns as soon as [`now`](Clock::now) has reached `deadline`, at once if it has.
    async fn sleep_until(&self, deadline: SystemTime);
}

/// Tokio's clock: monotonic, and virtual under `#[tokio::test(start_paused = true)]`.
///
/// It starts at the machine's wall clock time and from then on ignores that clock, so it
/// never jumps.
///
/// ```
/// use std::time::Duration;
/// use queue_api::{Clock, TokioClock};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let clock = TokioClock::new();
/// let before = clock.now();
/// clock.sleep_until(before + Duration::from_secs(3600)).await; // takes no time at all
/// assert_eq!(clock.now(), before + Duration::from_secs(3600));
/// # }
/// ```
#[derive(Debug)]
pub struct TokioClock {
    started: Instant,
    started_at: SystemTime,
}

impl TokioClock {
    /// A clock that starts at the wall clock's time.
    #[allow(clippy::disallowed_methods)] // the place where time enters
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            started_at: millis::to_time(millis::floor(SystemTime::now())),
        }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        self.started_at + self.started.elapsed()
    }

    #[allow(clippy::disallowed_methods)] // the place where waiting happens
    async fn sleep_until(&self, deadline: SystemTime) {
        // Tokio's timer counts in milliseconds and may fire a fraction early against a
        // deadline that is finer, so what counts is the clock, not the timer.
        while let Ok(left) = deadline.duration_since(self.now()) {
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// The machine's wall clock, for stores that outlive their processes and are shared by them.
///
/// [`TokioClock`] is none for that: it never looks at the wall clock again, so two processes drift
/// apart by every correction that the wall clock gets and by every hour that the machine sleeps.
/// The price is that a clock which is set forward ends leases early for all who share it. A store
/// that has a clock of its own had better use that one.
///
/// ```
/// use queue_api::{Clock, SystemClock};
///
/// let clock = SystemClock;
/// assert!(clock.now() > std::time::UNIX_EPOCH);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the place where time enters
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Sleeps in pieces of at most a second, because the clock may be set while it does.
    #[allow(clippy::disallowed_methods)] // the place where waiting happens
    async fn sleep_until(&self, deadline: SystemTime) {
        while let Ok(left) = deadline.duration_since(self.now())
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }
}

/// A clock that stands still until it is moved, for tests that decide what time it is.
///
/// ```
/// use std::time::Duration;
/// use queue_api::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_millis(1));
/// assert_eq!(clock.now(), before + Duration::from_millis(1));
/// ```
pub struct ManualClock {
    /// Milliseconds since the Unix epoch.
    millis: AtomicU64,
    moved: watch::Sender<()>,
}

impl ManualClock {
    /// A clock at an arbitrary, fixed time: 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        Self {
            millis: AtomicU64::new(1_767_225_600_000),
            moved: watch::Sender::new(()),
        }
    }

    /// Moves the clock forward, in whole milliseconds, and wakes whoever slept until then.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).expect("a test moves time by less than 500 My");
        self.millis.fetch_add(millis, Ordering::SeqCst);
        self.moved.send_replace(());
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        // Subscribed before the clock is read, so a move between the two is not missed.
        let mut moved = self.moved.subscribe();
        while self.now() < deadline {
            moved.changed().await.expect("self owns the sender");
        }
    }
}
