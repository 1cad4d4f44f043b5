//! Durations as text: numbers with units.

use std::time::Duration;

use jiff::{SignedDuration, SpanRelativeTo, Unit, fmt::friendly::SpanParser};

/// Reads a duration such as `1m 30s`. An error says what is allowed.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let span = SpanParser::new().parse_span(text);
    // No time zone applies, so a day has 24 hours.
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let duration = duration.ok().and_then(|it| Duration::try_from(it).ok());
    duration.ok_or_else(|| {
        format!(
            "{text:?} is not a duration; it must be numbers with the units ms, s, m, h or d, such \
             as 500ms, 30s, 1h 30m or 7d"
        )
    })
}

/// The same for a time that is not 0.
pub(crate) fn parse_positive(text: &str) -> Result<Duration, String> {
    let duration = parse(text)?;
    match duration < Duration::from_millis(1) {
        true => Err(format!("{text} is too short; it must be at least 1ms")),
        false => Ok(duration),
    }
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
        assert_eq!(parse("1d 1h"), Ok(Duration::from_secs(25 * 3600)));
        for wrong in ["30", "-5s", "soon", "1month", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse_positive("0s").is_err() && parse_positive("1ms").is_ok());
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(short(Duration::from_millis(1500)), "1s 500ms");
        assert_eq!(short(Duration::from_millis(90_400)), "1m 30s");
        assert_eq!(short(Duration::ZERO), "0s");
    }
}
