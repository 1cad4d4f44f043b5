//! What the judge says of a message that the contract was broken for.

use std::fmt;

use super::{event::Call, timeline::timeline};
use crate::contract::Line;

/// A message that the contract was broken for, for certain.
#[derive(Clone, Debug)]
pub struct Violation {
    message: String,
    why: String,
    timeline: String,
}

impl Violation {
    /// What is wrong with a message, and the calls that make it so.
    pub(super) fn new(calls: &[Call], message: &str, why: String, by: &[&Call]) -> Self {
        Self {
            message: message.to_owned(),
            timeline: timeline(calls, message, &why, by),
            why,
        }
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is this line that was broken.
    pub fn is_about(&self, line: Line) -> bool {
        let lines = self.why.split(':').next().unwrap_or_default();
        lines.split(", ").any(|code| code == line.code())
    }
}

/// The calls that concern the message, and what is wrong with them.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.timeline)
    }
}
