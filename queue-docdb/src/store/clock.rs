//! Time: the server's, unless the builder has another clock.
//!
//! No other module reads this machine's wall clock.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use mongodb::{
    Database,
    bson::{DateTime, Document, doc},
};
use queue_api::{Clock, async_trait, millis};

use crate::{
    lock::lock,
    store::{
        error::StoreError,
        monotonic::{elapsed, monotonic_now},
        retry::{Deadline, Retries},
    },
};

/// Where the backend takes its time from.
#[derive(Debug)]
pub(crate) enum Time {
    Server(ServerClock),
    /// The builder's, in tests.
    Custom(Arc<dyn Clock>),
}

impl Time {
    /// The time now. If a new measurement is due, it is made first, within `at_most`.
    pub(crate) async fn now(&self, at_most: Duration) -> DateTime {
        if let Self::Server(clock) = self {
            // After a timeout, the last measurement is good enough. A silent server must not use
            // up a call's time before its first command.
            let at_most = at_most.min(MEASURE_WITHIN);
            let _ = tokio::time::timeout(at_most, clock.refresh()).await;
        }
        DateTime::from_millis(millis::floor(self.clock().now()))
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        match self {
            Self::Server(clock) => clock,
            Self::Custom(clock) => clock.as_ref(),
        }
    }
}

/// The server's clock: the time in the last answer to `hello`, plus this machine's monotonic
/// clock since then.
///
/// A wrong wall clock does no harm, because it is not used. Time in which the machine is suspended
/// counts. The error is at most half a round trip, plus the drift since the last measurement.
#[derive(Debug)]
pub(crate) struct ServerClock {
    admin: Database,
    timeout: Duration,
    anchor: Mutex<Anchor>,
    /// When to measure again. Locked during a measurement; other calls use the last one then.
    due: tokio::sync::Mutex<Duration>,
    /// The latest time that `now` returned, in ms since the epoch. A new measurement may be
    /// behind the last one, but time never goes back: a message that was just released would
    /// not be ready yet.
    latest: AtomicI64,
    /// Whether a warning was logged that the server does not report its time.
    warned: AtomicBool,
}

/// The server's time at one point of this machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    at: Duration,
    server_time: SystemTime,
    uncertainty: Duration,
}

/// Clocks usually drift by about ten parts in a million: less than a millisecond in this time.
const REFRESH_AFTER: Duration = Duration::from_secs(30);

/// How long a call waits for a new measurement.
const MEASURE_WITHIN: Duration = Duration::from_secs(1);

/// When to measure again after a measurement failed or was too coarse.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Clocks are assumed to drift by at most one part in this many.
const DRIFT: u32 = 10_000;

/// A new measurement may always be this much less precise: the unit of stored times.
const TOLERANCE: Duration = Duration::from_millis(1);

/// How often to ask for the first measurement; the shortest round trip counts.
const FIRST_MEASUREMENTS: usize = 3;

impl ServerClock {
    /// Asks the server for its time.
    pub(crate) async fn measure(
        admin: Database,
        timeout: Duration,
        deadline: Deadline,
    ) -> Result<Self, StoreError> {
        let warned = AtomicBool::new(false);
        let mut best = measure(&admin, deadline, &warned).await?;
        for _ in 1..FIRST_MEASUREMENTS {
            let next = measure(&admin, deadline, &warned).await?;
            if next.uncertainty < best.uncertainty {
                best = next;
            }
        }
        Ok(Self {
            admin,
            timeout,
            anchor: Mutex::new(best),
            due: tokio::sync::Mutex::new(monotonic_now() + REFRESH_AFTER),
            latest: AtomicI64::new(0),
            warned,
        })
    }

    /// Measures again if that is due. A failure is not an error: the last measurement is good
    /// enough, and the caller's own command reports what is wrong.
    async fn refresh(&self) {
        let Ok(mut due) = self.due.try_lock() else {
            return;
        };
        if monotonic_now() < *due {
            return;
        }
        // Set before the measurement, which may be dropped: the next call must not wait again.
        *due = monotonic_now() + RETRY_AFTER;
        let pause = match measure(&self.admin, Deadline::after(self.timeout), &self.warned).await {
            Ok(anchor) if lock(&self.anchor).may_be_replaced_by(&anchor) => {
                *lock(&self.anchor) = anchor;
                REFRESH_AFTER
            }
            Ok(_) => RETRY_AFTER,
            Err(error) => {
                tracing::warn!(%error, "cannot read the server's time; the last one is used");
                RETRY_AFTER
            }
        };
        *due = monotonic_now() + pause;
    }
}

#[async_trait]
impl Clock for ServerClock {
    fn now(&self) -> SystemTime {
        let now = millis::floor(lock(&self.anchor).time_at(monotonic_now()));
        let before = self.latest.fetch_max(now, Ordering::Relaxed);
        millis::to_time(now.max(before))
    }

    #[allow(clippy::disallowed_methods)] // this is the clock that others sleep by
    async fn sleep_until(&self, deadline: SystemTime) {
        while let Ok(left) = deadline.duration_since(self.now()) {
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// Asks the server once for its time.
async fn measure(
    admin: &Database,
    deadline: Deadline,
    warned: &AtomicBool,
) -> Result<Anchor, StoreError> {
    let sent = monotonic_now();
    let reply = hello(admin, &mut deadline.retries()).await?;
    let round_trip = elapsed(sent);
    let local_time = server_time(&reply, round_trip, warned);
    Ok(Anchor::new(sent, round_trip, local_time))
}

/// The time in an answer to `hello`. DocumentDB does not document that it is there.
fn server_time(reply: &Document, round_trip: Duration, warned: &AtomicBool) -> SystemTime {
    match reply.get_datetime("localTime") {
        Ok(time) => time.to_system_time(),
        Err(_) => {
            if !warned.swap(true, Ordering::Relaxed) {
                tracing::warn!("the server does not report its time; this machine's clock is used");
            }
            wall_clock_now() - round_trip / 2
        }
    }
}

impl Anchor {
    /// The server read its clock during the round trip. The middle of it is off by half at most.
    fn new(sent: Duration, round_trip: Duration, local_time: SystemTime) -> Self {
        let uncertainty = round_trip / 2;
        Self {
            at: sent + uncertainty,
            // The server truncates to milliseconds. On average that loses half of one.
            server_time: local_time + Duration::from_micros(500),
            uncertainty,
        }
    }

    /// Whether `newer` is about as precise as this one is by now.
    ///
    /// A round trip may include a wait for a connection. The middle is then too early by up to
    /// half of it, so the time would jump forward, and it never goes back.
    fn may_be_replaced_by(&self, newer: &Self) -> bool {
        let age = newer.at.saturating_sub(self.at);
        newer.uncertainty <= self.uncertainty + age / DRIFT + TOLERANCE
    }

    fn time_at(&self, now: Duration) -> SystemTime {
        match now.checked_sub(self.at) {
            Some(since) => self.server_time + since,
            None => self.server_time - (self.at - now),
        }
    }
}

/// The server's answer to `hello`, or to the older `isMaster`.
pub(crate) async fn hello(admin: &Database, retries: &mut Retries) -> Result<Document, StoreError> {
    loop {
        match hello_once(admin, retries).await {
            Err(error @ StoreError::TimedOut(_)) => retries.after(error).await?,
            answer => return answer,
        }
    }
}

/// The same, as one of several tries.
pub(crate) async fn hello_once(admin: &Database, tries: &Retries) -> Result<Document, StoreError> {
    // Command not found; on DocumentDB, feature not supported.
    const UNKNOWN: [i32; 2] = [59, 303];
    let ask = |command| tries.run(admin.run_command(doc! { command: 1 }));
    match ask("hello").await {
        // DocumentDB before 5.0 has the older name only.
        Err(error) if UNKNOWN.iter().any(|&code| error.has_code(code)) => ask("isMaster").await,
        answer => answer,
    }
}

#[allow(clippy::disallowed_methods)] // the last resort, with a warning
fn wall_clock_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU64, time::UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_server_reads_its_clock_in_the_middle_of_the_round_trip() {
        let sent = monotonic_now();
        // The server's clock is years off, and its answer takes 40 ms.
        let local_time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let anchor = Anchor::new(sent, Duration::from_millis(40), local_time);
        assert_eq!(anchor.uncertainty, Duration::from_millis(20));
        let expected = local_time + Duration::from_micros(500);
        assert_eq!(anchor.time_at(sent + Duration::from_millis(20)), expected);
        assert_eq!(
            anchor.time_at(sent + Duration::from_secs(60)),
            expected + Duration::from_millis(59_980)
        );
        assert_eq!(anchor.time_at(sent), expected - Duration::from_millis(20));
    }

    /// Counts events; all of them are warnings here.
    #[derive(Clone, Default)]
    struct Warnings(Arc<AtomicU64>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_server_without_its_time_is_logged_once() {
        let warnings = Warnings::default();
        let warned = AtomicBool::new(false);
        let silent = doc! { "ok": 1, "isWritablePrimary": true };
        let server = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let complete = doc! { "ok": 1, "localTime": DateTime::from_system_time(server) };
        tracing::subscriber::with_default(warnings.clone(), || {
            let time = |reply| server_time(reply, Duration::ZERO, &warned);
            assert_eq!(time(&complete), server);
            assert_eq!(warnings.0.load(Ordering::Relaxed), 0);
            for _ in 0..3 {
                let before = wall_clock_now();
                let time = time(&silent);
                assert!(before <= time && time <= wall_clock_now());
            }
        });
        assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_coarse_measurement_does_not_replace_a_fine_one() {
        let sent = monotonic_now();
        let measured = |after_secs, round_trip_millis| {
            let sent = sent + Duration::from_secs(after_secs);
            Anchor::new(sent, Duration::from_millis(round_trip_millis), UNIX_EPOCH)
        };
        let first = measured(0, 2);
        assert!(first.may_be_replaced_by(&measured(30, 1)));
        // The drift in 30 s is up to 3 ms, and the tolerance 1 ms.
        assert!(first.may_be_replaced_by(&measured(30, 9)));
        assert!(!first.may_be_replaced_by(&measured(30, 12)));
        assert!(
            !first.may_be_replaced_by(&measured(30, 6000)),
            "a wait for a connection"
        );
        // More precise than a measurement of yesterday.
        assert!(first.may_be_replaced_by(&measured(100_000, 6000)));
    }
}
