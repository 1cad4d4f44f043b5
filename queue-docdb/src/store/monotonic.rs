//! This machine's monotonic clock.

use std::time::Duration;

/// The time since some start. It includes the time in which the machine is suspended, which
/// `Instant` leaves out on Linux and macOS.
///
/// Not tokio's clock, which a test may pause. The server's goes on.
#[cfg(unix)]
pub(crate) fn monotonic_now() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    Duration::try_from(clock_gettime(CLOCK)).unwrap_or_default()
}

#[cfg(not(unix))]
#[allow(clippy::disallowed_methods)] // the one place that reads it
pub(crate) fn monotonic_now() -> Duration {
    use std::{sync::LazyLock, time::Instant};

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

pub(crate) fn elapsed(since: Duration) -> Duration {
    monotonic_now().saturating_sub(since)
}
