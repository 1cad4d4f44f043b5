//! What the judge says of a message that the contract was broken for.

use std::fmt::{self, Write};

use super::event::Call;
use crate::contract::Line;

/// A message that the contract was broken for, for certain.
#[derive(Clone, Debug)]
pub struct Broken {
    message: String,
    why: String,
    timeline: String,
}

impl Broken {
    pub(super) fn new(calls: &[Call], message: &str, why: String) -> Self {
        Self {
            message: message.to_owned(),
            timeline: timeline(calls, message, &why),
            why,
        }
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is this line that was broken.
    pub fn is_about(&self, line: Line) -> bool {
        self.why.split(':').next() == Some(line.code())
    }
}

/// The calls that concern the message, and what is wrong with them.
impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.timeline)
    }
}

/// The calls that concern one message, in the order in which they began, in microseconds.
fn timeline(calls: &[Call], id: &str, why: &str) -> String {
    let mut concerned: Vec<_> = calls.iter().filter(|call| call.concerns(id)).collect();
    concerned.sort_by_key(|call| call.began);
    let start = concerned.first().map_or(0, |call| call.began);
    let since = |moment: u64| (moment - start) / 1000;
    let mut text = format!("message {id}\n");
    for call in concerned {
        let ended = call
            .ended
            .map_or("?".to_owned(), |ended| since(ended).to_string());
        let Call {
            by,
            began,
            clock_from,
            clock_to,
            what,
            ..
        } = call;
        let began = since(*began);
        let _ = writeln!(text, "  {began:>8} to {ended:>8} us  {by:10} {what}");
        let _ = writeln!(
            text,
            "  {:>24}  {:10} (backend's clock {clock_from} to {clock_to})",
            "", ""
        );
    }
    let _ = writeln!(text, "  ==> {why}");
    text
}
