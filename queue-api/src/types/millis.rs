//! Conversion of times and durations to whole milliseconds, the resolution of the contract.
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

/// Milliseconds, of a duration or since the Unix epoch.
pub type Millis = i64;

/// Milliseconds since the Unix epoch, rounded down. 0 for times before 1970.
pub fn floor(time: SystemTime) -> Millis {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    in_millis(since_epoch.as_secs(), since_epoch.subsec_millis())
}

/// A duration in milliseconds, rounded up so that nothing is ready too early. At most
/// [`Millis::MAX`].
pub fn ceil(duration: Duration) -> Millis {
    in_millis(
        duration.as_secs(),
        duration.subsec_nanos().div_ceil(1_000_000),
    )
}

/// 64-bit arithmetic, because dividing the 128 bits of [`Duration::as_nanos`] is slow and every
/// operation of a backend converts several times.
fn in_millis(seconds: u64, millis: u32) -> Millis {
    let seconds = Millis::try_from(seconds).unwrap_or(Millis::MAX);
    seconds.saturating_mul(1000).saturating_add(millis.into())
}

/// The inverse of [`floor`]. 1970 for negative values.
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
