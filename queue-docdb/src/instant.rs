//! Points in time as the database keeps them: whole milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mongodb::bson::DateTime;

/// The earliest time there is here: `$gte` of it selects every document that has a time, and
/// none where the field is absent.
pub(crate) const EARLIEST: DateTime = DateTime::from_millis(0);

/// `time` without its fraction of a millisecond. There is no time before [`EARLIEST`].
pub(crate) fn floor(time: SystemTime) -> DateTime {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    DateTime::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// `duration` in milliseconds; a fraction counts as a whole one, so that nothing is ready
/// before its time.
pub(crate) fn ceil_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// The point `millis` after `start`.
pub(crate) fn after(start: DateTime, millis: i64) -> DateTime {
    DateTime::from_millis(start.timestamp_millis().saturating_add(millis))
}

/// How long `earlier` lies before `later`; nothing where it does not.
pub(crate) fn between(earlier: DateTime, later: DateTime) -> Duration {
    let millis = later
        .timestamp_millis()
        .saturating_sub(earlier.timestamp_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_floored_and_durations_rounded_up() {
        let time = UNIX_EPOCH + Duration::from_micros(1_999);
        assert_eq!(floor(time).timestamp_millis(), 1);
        assert_eq!(floor(UNIX_EPOCH - Duration::from_micros(1)), EARLIEST);
        assert_eq!(ceil_millis(Duration::from_micros(1_001)), 2);
        assert_eq!(ceil_millis(Duration::from_millis(7)), 7);
        assert_eq!(ceil_millis(Duration::ZERO), 0);
        assert_eq!(ceil_millis(Duration::MAX), i64::MAX);
    }

    #[test]
    fn nothing_overflows() {
        let end = after(DateTime::from_millis(5), i64::MAX);
        assert_eq!(end, DateTime::MAX);
        assert_eq!(between(end, EARLIEST), Duration::ZERO);
    }
}
