//! What a client process reports about its calls, on stdout: once before and once after each.

use std::io::Write;

use queue_api::Error;
use queue_conformance::record::{Call, Millis, Operation, moment, wall_clock};
use serde::{Deserialize, Serialize};

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) call: Call,
    pub(crate) answer: Answer,
}

/// How a call ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Pending,
    Ok,
    /// The message was there already, so this call did not store it.
    Duplicate,
    Failed {
        error: String,
        is_retryable: bool,
    },
}

impl Answer {
    pub(crate) fn failed(error: &Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Failed {
            error: text,
            is_retryable: error.is_retryable(),
        }
    }
}

impl Report {
    /// Whether a message was sent or settled.
    pub(crate) fn is_progress(&self) -> bool {
        match &self.call.operation {
            Operation::Enqueue { .. } => matches!(self.answer, Answer::Ok | Answer::Duplicate),
            Operation::Settle { answer, .. } => *answer == Some(true),
            Operation::Lease { .. } | Operation::Store { .. } | Operation::Manage { .. } => false,
        }
    }
}

/// Writes a client's reports.
#[derive(Debug)]
pub(crate) struct Reporter {
    by: String,
    calls: u64,
}

impl Reporter {
    pub(crate) fn new(by: String) -> Self {
        Self { by, calls: 0 }
    }

    pub(crate) fn begin(&mut self, operation: Operation) -> Report {
        self.calls += 1;
        let report = Report {
            call: Call {
                by: self.by.clone(),
                number: self.calls,
                part: 0,
                began: moment(),
                ended: None,
                clock_from: wall_clock(),
                clock_to: Millis::MAX,
                operation,
            },
            answer: Answer::Pending,
        };
        write(&report);
        report
    }

    /// A call that failed has no end: it may take effect later.
    pub(crate) fn end(&self, mut report: Report, operation: Operation, answer: Answer) {
        report.call.operation = operation;
        if !matches!(answer, Answer::Failed { .. }) {
            report.call.ended = Some(moment());
            report.call.clock_to = wall_clock();
        }
        report.answer = answer;
        write(&report);
    }
}

fn write(report: &Report) {
    let line = serde_json::to_string(report).expect("a call is plain data");
    // Fails only if the test process has ended; this process ends then, too.
    let _ = writeln!(std::io::stdout(), "{line}");
}
