//! Points in time as the database stores them: in whole milliseconds.

use std::time::{Duration, SystemTime};

use mongodb::bson::DateTime;
use queue_api::millis;

/// The earliest time. `$gte` of it selects every document whose field is a time.
pub(crate) const EARLIEST: DateTime = DateTime::MIN;

/// `time` rounded down to a millisecond, and not before 1970.
pub(crate) fn floor(time: SystemTime) -> DateTime {
    DateTime::from_millis(millis::floor(time))
}

/// The time `millis` after `start`.
pub(crate) fn after(start: DateTime, millis: i64) -> DateTime {
    DateTime::from_millis(start.timestamp_millis().saturating_add(millis))
}

/// The time from `earlier` to `later`; zero if it is not earlier.
pub(crate) fn between(earlier: DateTime, later: DateTime) -> Duration {
    let millis = later
        .timestamp_millis()
        .saturating_sub(earlier.timestamp_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn times_are_rounded_down() {
        let time = UNIX_EPOCH + Duration::from_micros(1_999);
        assert_eq!(floor(time).timestamp_millis(), 1);
        let before = UNIX_EPOCH - Duration::from_micros(1);
        assert_eq!(floor(before).timestamp_millis(), 0);
    }

    #[test]
    fn nothing_overflows() {
        let end = after(DateTime::from_millis(5), i64::MAX);
        assert_eq!(end, DateTime::MAX);
        assert_eq!(between(end, EARLIEST), Duration::ZERO);
    }
}
