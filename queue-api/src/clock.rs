//! Clocks. Only this module reads the machine's clocks and sleeps.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};

use crate::{catch_panic, millis, millis::Millis};

/// The source of time of a backend.
///
/// A backend takes all times of its messages from its clock and waits through it. So a test can
/// move time. Polling for other processes' changes uses real time, not this clock.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> SystemTime;

    /// Waits until [`now`](Clock::now) has reached `deadline`.
    async fn sleep_until(&self, deadline: SystemTime);
}

/// Tokio's clock. It is monotonic, and virtual in a test with `start_paused = true`.
///
/// It reads the machine's wall clock once, when it is created. After that it never jumps.
///
/// ```
/// use std::time::Duration;
/// use queue_api::{Clock, TokioClock};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let clock = TokioClock::new();
/// let before = clock.now();
/// clock.sleep_until(before + Duration::from_secs(3600)).await; // takes no real time
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
    #[allow(clippy::disallowed_methods)] // clocks may read the machine's clock
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
        let now = self.started_at.checked_add(self.started.elapsed());
        now.unwrap_or(self.started_at)
    }

    #[allow(clippy::disallowed_methods)] // clocks may sleep
    async fn sleep_until(&self, deadline: SystemTime) {
        // Tokio's timer has a resolution of 1 ms and may fire before a finer deadline.
        while let Some(left) = time_left(self, deadline) {
            tokio::time::sleep(left).await;
        }
    }
}

/// The machine's wall clock, for stores that several processes share.
///
/// Do not use [`TokioClock`] there. It never reads the wall clock again, so the clocks of two
/// processes drift apart. The cost: if the wall clock is set forward, leases expire early. If the
/// store has a clock of its own, use that one.
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
    #[allow(clippy::disallowed_methods)] // clocks may read the machine's clock
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    #[allow(clippy::disallowed_methods)] // clocks may sleep
    async fn sleep_until(&self, deadline: SystemTime) {
        // At most a second at a time, because the wall clock may be set meanwhile.
        while let Some(left) = time_left(self, deadline) {
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }
}

/// `None` if the deadline has been reached.
fn time_left(clock: &impl Clock, deadline: SystemTime) -> Option<Duration> {
    let left = deadline.duration_since(clock.now()).ok()?;
    (!left.is_zero()).then_some(left)
}

/// A clock of the application that may panic. Then tokio's clock goes on from its last time.
///
/// If it panics before its first reading, tokio's clock began, and the two may be years apart. So
/// later readings are shifted, and time does not jump.
#[derive(Debug)]
pub(crate) struct GuardedClock {
    clock: Arc<dyn Clock>,
    state: Mutex<GuardedState>,
}

#[derive(Debug)]
struct GuardedState {
    /// Shows the last time of the clock, and goes on from there.
    fallback: TokioClock,
    panicked: bool,
    /// The first reading of the clock, and the time that was shown for it.
    first: Option<(SystemTime, SystemTime)>,
}

impl GuardedClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(GuardedState {
            fallback: TokioClock::new(),
            panicked: false,
            first: None,
        });
        Self { clock, state }
    }

    fn state(&self) -> MutexGuard<'_, GuardedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for GuardedClock {
    #[allow(clippy::disallowed_methods)] // clocks may read the machine's clock
    fn now(&self) -> SystemTime {
        let reading = catch_panic::catch(|| self.clock.now());
        let mut state = self.state();
        match reading {
            Ok(reading) => {
                let shown = match state.panicked {
                    true => state.fallback.now(),
                    false => reading,
                };
                let (first, shown) = *state.first.get_or_insert((reading, shown));
                let now = moved(reading, first, shown);
                state.fallback = TokioClock {
                    started: Instant::now(),
                    started_at: now,
                };
                now
            }
            Err(panic) => {
                state.panicked = true;
                catch_panic::log("the clock", &panic);
                state.fallback.now()
            }
        }
    }

    #[allow(clippy::disallowed_methods)] // clocks may sleep
    async fn sleep_until(&self, deadline: SystemTime) {
        // The clock cannot sleep before its first reading: it may have another epoch.
        let first = self.state().first;
        if let Some((first, shown)) = first {
            let deadline = moved(deadline, shown, first);
            if let Err(panic) = catch_panic::caught(|| self.clock.sleep_until(deadline)).await {
                catch_panic::log("the clock", &panic);
            }
        }
        // At most a second at a time, because the clock may work again.
        while let Some(left) = time_left(self, deadline) {
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }
}

/// `time` moved by the difference of `to` and `from`.
fn moved(time: SystemTime, from: SystemTime, to: SystemTime) -> SystemTime {
    let moved = match to.duration_since(from) {
        Ok(later) => time.checked_add(later),
        Err(earlier) => time.checked_sub(earlier.duration()),
    };
    moved.unwrap_or(time)
}

/// A clock for tests. It stands still until the test moves it.
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
    /// A clock at 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        Self {
            millis: AtomicU64::new(1_767_225_600_000),
            moved: watch::Sender::new(()),
        }
    }

    /// Moves the clock forward by whole milliseconds and wakes the tasks whose deadline it
    /// reaches. It stops at [`Millis::MAX`].
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let add = |millis: u64| Some(millis.saturating_add(by).min(Millis::MAX.unsigned_abs()));
        let updated = self
            .millis
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        updated.expect("the update never refuses");
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
        // Subscribe before reading the clock, so that no move in between is missed.
        let mut moved = self.moved.subscribe();
        while self.now() < deadline {
            moved.changed().await.expect("self owns the sender");
        }
    }
}
