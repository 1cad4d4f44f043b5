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

/// A backend's source of time.
///
/// A backend takes all its times from the clock that it was built with, and waits through it,
/// so whoever owns the clock owns time.
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
            started_at: whole_millis(SystemTime::now()),
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

/// `time` without its fraction of a millisecond: the resolution of the contract.
fn whole_millis(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_millis(since_epoch.as_millis() as u64)
}
