//! The backend's time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use queue_api::{
    Clock, async_trait,
    millis::{self, Millis},
};
use tokio::{
    runtime::{Handle, Id},
    time::Instant,
};

/// Tokio's clock in each runtime.
///
/// A test with paused time has a clock of its own, in its own runtime. A reading of one says nothing
/// about another. So each runtime has an anchor, made at its first reading: the latest time that any
/// runtime has seen by then, and not before real time.
#[derive(Debug)]
pub(crate) struct RuntimeClock {
    /// Real time, so that runtimes without paused time agree.
    created: std::time::Instant,
    created_at: SystemTime,
    anchors: Mutex<Anchors>,
}

#[derive(Debug, Default)]
struct Anchors {
    /// `None` is the anchor of threads without a runtime.
    of_runtime: HashMap<Option<Id>, Anchor>,
    latest: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    instant: Instant,
    time: SystemTime,
}

impl RuntimeClock {
    #[allow(clippy::disallowed_methods)] // clocks may read the machine's clock
    pub(crate) fn new() -> Self {
        Self {
            created: std::time::Instant::now(),
            created_at: millis::to_time(millis::floor(SystemTime::now())),
            anchors: Mutex::default(),
        }
    }
}

#[async_trait]
impl Clock for RuntimeClock {
    fn now(&self) -> SystemTime {
        let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        let instant = Instant::now();
        let mut anchors = self.anchors.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = anchors.latest.unwrap_or(self.created_at);
        let new = || Anchor {
            instant,
            time: latest.max(self.created_at + self.created.elapsed()),
        };
        let anchor = anchors.of_runtime.entry(runtime).or_insert_with(new);
        if instant < anchor.instant {
            // Tokio may use the id of a runtime again that is gone.
            *anchor = new();
        }
        let now = anchor.time + (instant - anchor.instant);
        anchors.latest = Some(latest.max(now));
        now
    }

    #[allow(clippy::disallowed_methods)] // clocks may sleep
    async fn sleep_until(&self, deadline: SystemTime) {
        // Tokio's timer has a resolution of 1 ms and may fire before a finer deadline.
        while let Ok(left) = deadline.duration_since(self.now())
            && left > Duration::ZERO
        {
            tokio::time::sleep(left).await;
        }
    }
}

/// A clock of the application, which stands still instead of going back.
#[derive(Debug)]
pub(crate) struct NeverBack {
    clock: Arc<dyn Clock>,
    /// The latest time that the clock has shown.
    latest: AtomicI64,
}

impl NeverBack {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let latest = AtomicI64::new(Millis::MIN);
        Self { clock, latest }
    }
}

#[async_trait]
impl Clock for NeverBack {
    fn now(&self) -> SystemTime {
        let now = millis::floor(self.clock.now());
        millis::to_time(self.latest.fetch_max(now, Ordering::Relaxed).max(now))
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        self.clock.sleep_until(deadline).await;
    }
}
