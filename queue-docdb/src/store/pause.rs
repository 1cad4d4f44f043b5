//! Pauses in real time. The database recovers, and other processes work, in real time and not by the
//! queue's clock.

use std::time::Duration;

use tokio::time::Instant;

/// Between half of `longest` and all of it, so that processes do not try at the same time.
pub(crate) fn jittered(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[allow(clippy::disallowed_methods)]
pub(crate) async fn real_time(until: Instant) {
    tokio::time::sleep_until(until).await;
}
