//! What a client tells the rig of its calls: once before each, and once more when it is over.

use std::io::Write;

use queue_api::Error;
use queue_conformance::record::{Call, Millis, Operation, moment, wall_clock};
use serde::{Deserialize, Serialize};

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) call: Call,
    pub(crate) answer: Answer,
}

/// How a call ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Not yet, or its caller is gone.
    None,
    Given,
    /// The message was there already, so this call did not store it.
    Duplicate,
    Failed {
        why: String,
        is_retryable: bool,
    },
}

impl Answer {
    pub(crate) fn failed(error: &Error) -> Self {
        let mut why = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            why.push_str(": ");
            why.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Failed {
            why,
            is_retryable: error.is_retryable(),
        }
    }
}

impl Told {
    /// A message is sent, or one is done with: what the whole is for.
    pub(crate) fn is_progress(&self) -> bool {
        match &self.call.operation {
            Operation::Enqueue { .. } => matches!(self.answer, Answer::Given | Answer::Duplicate),
            Operation::Settle { answer, .. } => *answer == Some(true),
            Operation::Lease { .. } => false,
        }
    }
}

/// Tells the rig, one line of stdout for each.
#[derive(Debug)]
pub(crate) struct Teller {
    by: String,
    number: u64,
}

impl Teller {
    pub(crate) fn new(by: String) -> Self {
        Self { by, number: 0 }
    }

    /// Says that a call is about to be made.
    pub(crate) fn begin(&mut self, what: Operation) -> Told {
        self.number += 1;
        let told = Told {
            call: Call {
                by: self.by.clone(),
                number: self.number,
                part: 0,
                began: moment(),
                ended: None,
                clock_from: wall_clock(),
                clock_to: Millis::MAX,
                operation: what,
            },
            answer: Answer::None,
        };
        tell(&told);
        told
    }

    /// Says how it ended. One that failed never did: it may take effect later.
    pub(crate) fn end(&self, mut told: Told, what: Operation, answer: Answer) {
        told.call.operation = what;
        if !matches!(answer, Answer::Failed { .. }) {
            told.call.ended = Some(moment());
            told.call.clock_to = wall_clock();
        }
        told.answer = answer;
        tell(&told);
    }
}

fn tell(told: &Told) {
    let line = serde_json::to_string(told).expect("a call is plain data");
    // An error means that the rig is gone, and this process soon, too.
    let _ = writeln!(std::io::stdout(), "{line}");
}
