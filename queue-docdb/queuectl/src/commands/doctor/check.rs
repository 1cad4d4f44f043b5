//! What a check found.

use serde::Serialize;

use crate::{
    output::{Column, Row},
    secret::redact,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Outcome {
    #[serde(rename = "ok")]
    Ok,
    /// Queues work, but worse than they could.
    #[serde(rename = "warning")]
    Warning,
    /// Queues do not work, or some calls do not.
    #[serde(rename = "failed")]
    Failed,
    #[serde(rename = "not checked")]
    NotChecked,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotChecked => "not checked",
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Check {
    check: &'static str,
    pub(super) result: Outcome,
    finding: String,
    /// What to do. The texts of queue-docdb say it in the finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn new(check: &'static str, result: Outcome, finding: impl AsRef<str>) -> Self {
        // Errors of libraries may quote a URI.
        let finding = redact(finding.as_ref());
        Self {
            check,
            result,
            finding,
            advice: None,
        }
    }

    pub(super) fn ok(check: &'static str, finding: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::Ok, finding)
    }

    pub(super) fn warning(check: &'static str, finding: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::Warning, finding)
    }

    pub(super) fn failed(check: &'static str, finding: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::Failed, finding)
    }

    pub(super) fn not_checked(check: &'static str, why: impl AsRef<str>) -> Self {
        Self::new(check, Outcome::NotChecked, why)
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl Row for Check {
    const COLUMNS: &[Column] = &[
        Column::Text("CHECK"),
        Column::Text("RESULT"),
        Column::Text("FINDING"),
    ];

    fn cells(&self) -> Vec<String> {
        let finding = match &self.advice {
            Some(advice) => format!("{}; {advice}", self.finding),
            None => self.finding.clone(),
        };
        let result = self.result.as_str().to_owned();
        vec![self.check.to_owned(), result, finding]
    }
}
