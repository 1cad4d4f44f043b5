//! Times and durations in whole milliseconds, the resolution of the contract: what every backend
//! needs that keeps them in a store.
//!
//! ```
//! use std::time::{Duration, UNIX_EPOCH};
//! use queue_api::millis;
//!
//! let noon = UNIX_EPOCH + Duration::from_micros(43_200_000_999);
//! assert_eq!(millis::floor(noon), 43_200_000);
//! assert_eq!(millis::ceil(Duration::from_micros(1)), 1);
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds: of a duration, or since the Unix epoch.
pub type Millis = i64;

/// The last whole millisecond that has passed at `time`; 0 for times before 1970.
pub fn floor(time: SystemTime) -> Millis {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    in_millis(since_epoch.as_secs(), since_epoch.subsec_millis())
}

/// A duration, rounded up, so that nothing is ready before its time; at most [`Millis::MAX`].
pub fn ceil(duration: Duration) -> Millis {
    in_millis(
        duration.as_secs(),
        duration.subsec_nanos().div_ceil(1_000_000),
    )
}

/// In 64 bits: a division of the 128 bits that [`Duration::as_nanos`] gives is a call, and each
/// operation of a backend needs several.
fn in_millis(seconds: u64, millis: u32) -> Millis {
    let seconds = Millis::try_from(seconds).unwrap_or(Millis::MAX);
    seconds.saturating_mul(1000).saturating_add(millis.into())
}

/// The time that [`floor`] gives back; 1970 for what lies before it.
pub fn to_time(millis: Millis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overflows() {
        assert_eq!(ceil(Duration::MAX), Millis::MAX);
        assert_eq!(ceil(Duration::ZERO), 0);
        assert_eq!(floor(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(to_time(-1), UNIX_EPOCH);
        assert_eq!(floor(to_time(1_767_225_600_001)), 1_767_225_600_001);
    }
}
