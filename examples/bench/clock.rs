//! The clock that all processes of this machine share, and waiting by it.

use std::time::Duration;

use queue_api::{Clock, TokioClock};
use rustix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds of the machine's monotonic clock.
pub(crate) fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The seconds since `then`.
pub(crate) fn seconds_since(then: u64) -> f64 {
    (nanos() - then) as f64 / 1e9
}

pub(crate) async fn pause(time: Duration) {
    let clock = TokioClock::new();
    clock.sleep_until(clock.now() + time).await;
}
