//! What the judge reports.

use std::fmt;

use super::{event::Call, timeline::timeline};
use crate::contract::Line;

/// A message for which the contract was certainly broken.
#[derive(Clone, Debug)]
pub struct Violation {
    message: String,
    why: String,
    timeline: String,
}

impl Violation {
    /// `broken_by` are the calls that break the contract together.
    pub(super) fn new(calls: &[Call], message: &str, why: String, broken_by: &[&Call]) -> Self {
        Self {
            message: message.to_owned(),
            timeline: timeline(calls, message, &why, broken_by),
            why,
        }
    }

    /// The id of the message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether this line of the contract was broken.
    pub fn is_about(&self, line: Line) -> bool {
        let lines = self.why.split(':').next().unwrap_or_default();
        lines.split(", ").any(|code| code == line.code())
    }
}

/// The calls about the message, and why they break the contract.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.timeline)
    }
}
