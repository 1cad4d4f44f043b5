//! Points in time as the database stores them: in whole milliseconds.

use std::time::Duration;

use mongodb::bson::DateTime;

/// The earliest time. `$gte` of it selects every document whose field is a time.
pub(crate) const EARLIEST: DateTime = DateTime::MIN;

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
    use super::*;

    #[test]
    fn nothing_overflows() {
        let end = after(DateTime::from_millis(5), i64::MAX);
        assert_eq!(end, DateTime::MAX);
        assert_eq!(between(end, EARLIEST), Duration::ZERO);
    }
}
