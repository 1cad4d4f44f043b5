//! A line of the table: a figure, what it is compared with, and what it has to be.

use std::fmt;

use serde::Serialize;

use crate::samples::Samples;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) section: &'static str,
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) measured: Samples,
    /// Which of the samples is the figure: the median, unless the row is about the slowest.
    pub(crate) quantile: f64,
    pub(crate) baseline: Option<Baseline>,
    pub(crate) target: Option<Target>,
}

/// What a figure is compared with, measured in the same rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Baseline {
    pub(crate) name: String,
    pub(crate) measured: Samples,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    #[serde(rename = "messages/s")]
    MessagesPerSecond,
    #[serde(rename = "commands/s")]
    CommandsPerSecond,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "bytes")]
    Bytes,
    #[serde(rename = "a message")]
    PerMessage,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessagesPerSecond => "messages/s",
            Self::CommandsPerSecond => "commands/s",
            Self::Milliseconds => "ms",
            Self::Nanoseconds => "ns",
            Self::Bytes => "bytes",
            Self::PerMessage => "a message",
        })
    }
}

/// Of the ratio where there is a baseline, else of the figure itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

impl Row {
    pub(crate) fn new(section: &'static str, name: impl Into<String>, unit: Unit) -> Self {
        Self {
            section,
            name: name.into(),
            unit,
            measured: Samples::default(),
            quantile: 0.5,
            baseline: None,
            target: None,
        }
    }

    #[must_use]
    pub(crate) fn measured(mut self, measured: Samples) -> Self {
        self.measured = measured;
        self
    }

    #[must_use]
    pub(crate) fn at_quantile(mut self, share: f64) -> Self {
        self.quantile = share;
        self
    }

    #[must_use]
    pub(crate) fn against(mut self, name: impl Into<String>, measured: Samples) -> Self {
        self.baseline = Some(Baseline {
            name: name.into(),
            measured,
        });
        self
    }

    #[must_use]
    pub(crate) fn at_least(mut self, least: f64) -> Self {
        self.target = Some(Target::AtLeast(least));
        self
    }

    #[must_use]
    pub(crate) fn at_most(mut self, most: f64) -> Self {
        self.target = Some(Target::AtMost(most));
        self
    }

    pub(crate) fn ratio(&self) -> Option<Samples> {
        let baseline = self.baseline.as_ref()?;
        Some(self.measured.ratio_to(&baseline.measured))
    }

    /// Whether the target is met; `None` where there is none.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let judged = self.ratio().unwrap_or_else(|| self.measured.clone());
        Some(self.target?.is_met_by(judged.quantile(self.quantile)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_of_the_ratio_where_there_is_one() {
        let samples = |figure| Samples::one(figure);
        let row = Row::new("s", "r", Unit::MessagesPerSecond).measured(samples(30.0));
        assert_eq!(row.is_met(), None);
        assert_eq!(row.clone().at_least(30.0).is_met(), Some(true));
        assert_eq!(row.clone().at_most(29.0).is_met(), Some(false));
        let row = row.against("baseline", samples(10.0));
        assert_eq!(row.clone().at_least(4.0).is_met(), Some(false));
        assert_eq!(row.at_most(3.0).is_met(), Some(true));
    }

    #[test]
    fn a_row_about_the_slowest_is_judged_by_them() {
        let hundred = (0..=100).map(f64::from).collect();
        let row = Row::new("s", "r", Unit::Milliseconds).measured(hundred);
        let row = row.at_most(60.0);
        assert_eq!(row.is_met(), Some(true));
        assert_eq!(row.at_quantile(0.99).is_met(), Some(false));
    }
}
