//! Time: the server's, unless the builder is given another clock.
//!
//! This is the one module that reads the machine's clocks.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mongodb::{
    Database,
    bson::{DateTime, Document, doc},
};
use queue_api::{Clock, async_trait};

use crate::{collection::run, error::StoreError, instant};

/// Where the backend takes its time from.
#[derive(Debug)]
pub(crate) enum Time {
    Server(ServerClock),
    Given(Arc<dyn Clock>),
}

impl Time {
    /// The time now, measured again first where that is due and can be done within `at_most`.
    pub(crate) async fn now(&self, at_most: Duration) -> DateTime {
        if let Self::Server(clock) = self {
            // Whoever runs out of time here goes on with the last measurement. A server that does
            // not answer is not to cost a call its time before it has begun.
            let at_most = at_most.min(MEASURE_WITHIN);
            let _ = tokio::time::timeout(at_most, clock.refresh()).await;
        }
        instant::floor(self.clock().now())
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        match self {
            Self::Server(clock) => clock,
            Self::Given(clock) => clock.as_ref(),
        }
    }
}

/// The server's clock, as well as it can be known here: what `hello` said last, and from then
/// on the monotonic clock of this machine.
///
/// So a client whose wall clock is ten minutes off neither steals leases nor delays messages.
/// How far it may be off is half a round trip plus what two clocks drift apart between two
/// measurements; the wall clock is never asked.
#[derive(Debug)]
pub(crate) struct ServerClock {
    admin: Database,
    timeout: Duration,
    /// A std mutex: it is held for a copy only, never across an await.
    anchor: Mutex<Anchor>,
    /// When to measure again. Held by whoever measures; the others go on with the anchor that
    /// there is.
    due: tokio::sync::Mutex<Instant>,
    /// The latest time that was given out, in ms since the epoch: a new measurement may lie
    /// behind the last, but time that was given out never goes back. A message that was just
    /// returned would otherwise not be ready yet.
    given: AtomicU64,
    warned: AtomicBool,
}

/// The server's time at one point of this machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    at: Instant,
    server_time: SystemTime,
    uncertainty: Duration,
}

/// Clocks drift apart by some ten parts in a million: less than a millisecond in this time.
const REFRESH_AFTER: Duration = Duration::from_secs(30);

/// How long a call waits for a new measurement.
const MEASURE_WITHIN: Duration = Duration::from_secs(1);

/// When to try again after a measurement that failed or was too coarse.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What clocks may drift apart: a hundred parts in a million, to be safe.
const DRIFT: u32 = 10_000;

/// How much worse a measurement may be in any case: the unit that times are kept in.
const TOLERANCE: Duration = Duration::from_millis(1);

/// How often to ask when the first measurement is made; the shortest round trip counts.
const FIRST_MEASUREMENTS: usize = 3;

impl ServerClock {
    /// Asks the server for its time.
    pub(crate) async fn measure(admin: Database, timeout: Duration) -> Result<Self, StoreError> {
        let warned = AtomicBool::new(false);
        let mut best = measure(&admin, timeout, &warned).await?;
        for _ in 1..FIRST_MEASUREMENTS {
            let next = measure(&admin, timeout, &warned).await?;
            if next.uncertainty < best.uncertainty {
                best = next;
            }
        }
        Ok(Self {
            admin,
            timeout,
            anchor: Mutex::new(best),
            due: tokio::sync::Mutex::new(monotonic_now() + REFRESH_AFTER),
            given: AtomicU64::new(0),
            warned,
        })
    }

    /// Measures again when the last time is too long ago. What fails here fails again, and
    /// better explained, in the operation that wanted to know the time; until then the
    /// monotonic clock is good enough.
    async fn refresh(&self) {
        let Ok(mut due) = self.due.try_lock() else {
            return;
        };
        if monotonic_now() < *due {
            return;
        }
        // Also where the measurement is dropped because it takes too long: not every call is to
        // wait for the next one.
        *due = monotonic_now() + RETRY_AFTER;
        let pause = match measure(&self.admin, self.timeout, &self.warned).await {
            Ok(anchor) if self.anchor().is_outdone_by(&anchor) => {
                *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = anchor;
                REFRESH_AFTER
            }
            Ok(_) => RETRY_AFTER,
            Err(error) => {
                tracing::warn!(%error, "the server's time could not be asked for");
                RETRY_AFTER
            }
        };
        *due = monotonic_now() + pause;
    }

    fn anchor(&self) -> Anchor {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ServerClock {
    fn now(&self) -> SystemTime {
        let now = self.anchor().time_at(monotonic_now());
        let millis = now.duration_since(UNIX_EPOCH).map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let before = self.given.fetch_max(millis, Ordering::Relaxed);
        UNIX_EPOCH + Duration::from_millis(millis.max(before))
    }

    #[allow(clippy::disallowed_methods)] // this is the clock that others wait through
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
    timeout: Duration,
    warned: &AtomicBool,
) -> Result<Anchor, StoreError> {
    let sent = monotonic_now();
    let reply = hello(admin, timeout).await?;
    let round_trip = elapsed(sent);
    let local_time = server_time(&reply, round_trip, warned);
    Ok(Anchor::new(sent, round_trip, local_time))
}

/// The time in a greeting, which DocumentDB does not promise to tell.
fn server_time(reply: &Document, round_trip: Duration, warned: &AtomicBool) -> SystemTime {
    match reply.get_datetime("localTime") {
        Ok(time) => time.to_system_time(),
        Err(_) => {
            if !warned.swap(true, Ordering::Relaxed) {
                tracing::warn!("the server does not tell its time, this machine's is used");
            }
            wall_clock_now() - round_trip / 2
        }
    }
}

impl Anchor {
    /// The server read its clock at some point of the round trip: in the middle of it, give
    /// or take half.
    fn new(sent: Instant, round_trip: Duration, local_time: SystemTime) -> Self {
        let uncertainty = round_trip / 2;
        Self {
            at: sent + uncertainty,
            // It is told in whole milliseconds; on average half of one is cut.
            server_time: local_time + Duration::from_micros(500),
            uncertainty,
        }
    }

    /// Whether `newer` is about as good as this one is by now.
    ///
    /// A round trip may include a wait for a pooled connection. The server's clock was then
    /// read near its end, and the middle is off by up to half of it, always forwards; and
    /// time that was given out does not go back.
    fn is_outdone_by(&self, newer: &Self) -> bool {
        let age = newer.at.saturating_duration_since(self.at);
        newer.uncertainty <= self.uncertainty + age / DRIFT + TOLERANCE
    }

    fn time_at(&self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.at) {
            Some(since) => self.server_time + since,
            None => self.server_time - self.at.duration_since(instant),
        }
    }
}

/// The server's greeting, by whichever name it knows it.
pub(crate) async fn hello(admin: &Database, timeout: Duration) -> Result<Document, StoreError> {
    // Command not found; feature not supported, in the words of DocumentDB.
    const UNKNOWN: [i32; 2] = [59, 303];
    match run(timeout, admin.run_command(doc! { "hello": 1 })).await {
        // DocumentDB before 5.0 knows the older name only.
        Err(StoreError::Driver(error)) if is_command_error(&error, &UNKNOWN) => {
            run(timeout, admin.run_command(doc! { "isMaster": 1 })).await
        }
        answer => answer,
    }
}

fn is_command_error(error: &mongodb::error::Error, among: &[i32]) -> bool {
    matches!(&*error.kind, mongodb::error::ErrorKind::Command(command) if among.contains(&command.code))
}

// Not tokio's clock: a test may pause that one, while the server's goes on.
#[allow(clippy::disallowed_methods)] // the place where time enters
fn monotonic_now() -> Instant {
    Instant::now()
}

fn elapsed(since: Instant) -> Duration {
    monotonic_now().saturating_duration_since(since)
}

#[allow(clippy::disallowed_methods)] // the last resort, with a warning
fn wall_clock_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_is_that_of_the_middle_of_the_round_trip() {
        let sent = monotonic_now();
        // A server whose clock is years off, and an answer that takes 40 ms.
        let local_time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let anchor = Anchor::new(sent, Duration::from_millis(40), local_time);
        assert_eq!(anchor.uncertainty, Duration::from_millis(20));
        let told = local_time + Duration::from_micros(500);
        assert_eq!(anchor.time_at(sent + Duration::from_millis(20)), told);
        assert_eq!(
            anchor.time_at(sent + Duration::from_secs(60)),
            told + Duration::from_millis(59_980)
        );
        assert_eq!(anchor.time_at(sent), told - Duration::from_millis(20));
    }

    /// Counts events, which are all warnings here.
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
    fn a_server_that_does_not_tell_its_time_is_complained_of_once() {
        let warnings = Warnings::default();
        let warned = AtomicBool::new(false);
        let silent = doc! { "ok": 1, "isWritablePrimary": true };
        let told = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let talking = doc! { "ok": 1, "localTime": DateTime::from_system_time(told) };
        tracing::subscriber::with_default(warnings.clone(), || {
            let time = |reply| server_time(reply, Duration::ZERO, &warned);
            assert_eq!(time(&talking), told);
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
        assert!(first.is_outdone_by(&measured(30, 1)));
        // In 30 s clocks drift by up to 3 ms, and a millisecond does not count.
        assert!(first.is_outdone_by(&measured(30, 9)));
        assert!(!first.is_outdone_by(&measured(30, 12)));
        assert!(
            !first.is_outdone_by(&measured(30, 6000)),
            "a wait for a connection"
        );
        // Better than what has drifted for days.
        assert!(first.is_outdone_by(&measured(100_000, 6000)));
    }
}
