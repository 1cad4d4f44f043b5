//! Durations as text: numbers with units.

use std::time::Duration;

use jiff::{SignedDuration, Unit, fmt::friendly::SpanParser};

/// Reads a duration such as `1m 30s`. An error says what is allowed.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let parsed = SpanParser::new().parse_unsigned_duration(text);
    parsed.map_err(|_| {
        format!(
            "{text:?} is not a duration; it must be numbers with units, such as 500ms, 30s or \
             1h 30m"
        )
    })
}

/// A duration to the second, or to the millisecond if it is short.
pub(crate) fn short(duration: Duration) -> String {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    let unit = match duration.as_secs() {
        0..10 => Unit::Millisecond,
        _ => Unit::Second,
    };
    let rounded = duration.round(unit).unwrap_or(duration);
    format!("{rounded:#}")
}

/// For serde: the text of a duration that may be absent.
pub(crate) mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(crate) use jiff::fmt::serde::unsigned_duration::friendly::compact::optional::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let parsed = text.as_deref().map(super::parse);
        parsed.transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["30", "-5s", "soon", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(short(Duration::from_millis(1500)), "1s 500ms");
        assert_eq!(short(Duration::from_millis(90_400)), "1m 30s");
        assert_eq!(short(Duration::ZERO), "0s");
    }
}
