//! The table counts what it should, for records with each violation.

use std::time::Duration;

use queue_conformance::record::{Call, Millis, Operation, ReceiptAction, RecordedDelivery};

use super::{
    report::{Answer, Report},
    round::{Outcome, Round, Times},
    scenario::Scenario,
    table::Table,
};

/// A record with one call each second.
#[derive(Default)]
struct Record(Vec<Report>);

impl Record {
    fn call(mut self, operation: Operation, answer: Answer) -> Self {
        let second = self.0.len() as u64 + 1;
        let failed = matches!(answer, Answer::Failed { .. });
        self.0.push(Report {
            call: Call {
                by: "client".to_owned(),
                number: second,
                part: 0,
                began: second * 1_000_000_000,
                ended: (!failed).then_some(second * 1_000_000_000 + 1),
                clock_from: second * 1000,
                clock_to: if failed { Millis::MAX } else { second * 1000 },
                operation,
            },
            answer,
        });
        self
    }

    fn enqueue(self, id: &str, answer: Answer) -> Self {
        let operation = Operation::Enqueue {
            id: id.to_owned(),
            delay: 0,
            answered: matches!(answer, Answer::Ok),
        };
        self.call(operation, answer)
    }

    fn lease(self, id: &str, attempt: u32, visibility: Millis) -> Self {
        let expires = (self.0.len() as u64 + 1) * 1000 + visibility;
        let given = RecordedDelivery {
            id: id.to_owned(),
            receipt: format!("{id}/{attempt}"),
            attempt,
            expires,
        };
        let answer = Some(vec![given]);
        self.call(Operation::Lease { visibility, answer }, Answer::Ok)
    }

    fn ack(self, id: &str, attempt: u32) -> Self {
        let operation = Operation::Settle {
            receipt: format!("{id}/{attempt}"),
            id: id.to_owned(),
            action: ReceiptAction::Ack,
            answer: Some(true),
        };
        self.call(operation, Answer::Ok)
    }

    /// The table's row, without the times, and whether the table accepts it.
    fn row(self) -> (String, bool) {
        let times = Times {
            election: Duration::ZERO,
            back: Duration::ZERO,
            stall: Duration::ZERO,
        };
        let round = Round {
            scenario: Scenario::PrimaryKilled,
            is_noisy: false,
            began: 0,
            outcome: Outcome::Measured(times),
        };
        let table = Table::new(&[round], &self.0);
        let text = table.to_string();
        let row = text.lines().nth(2).expect("the first row");
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        (columns[2..10].join(" | "), table.check().is_ok())
    }
}

fn failed(is_retryable: bool) -> Answer {
    Answer::Failed {
        error: "injected".to_owned(),
        is_retryable,
    }
}

pub(crate) fn the_table_shows_each_violation() {
    // Messages, lost, after ack, overlapping (within the bound), other, duplicated, stored twice, errors.
    let sent = || Record::default().enqueue("m.1", Answer::Ok);
    let good = sent().lease("m.1", 1, 5000).ack("m.1", 1);
    assert_eq!(
        good.row(),
        ("1 | 0 | 0 | 0 (0) | 0 | 0 | 0 | 0".to_owned(), true)
    );
    let lost = sent();
    assert_eq!(
        lost.row(),
        ("1 | 1 | 0 | 0 (0) | 0 | 0 | 0 | 0".to_owned(), false)
    );
    let lost_after_a_repeat = Record::default()
        .enqueue("m.1", failed(true))
        .enqueue("m.2", Answer::Duplicate);
    assert_eq!(
        lost_after_a_repeat.row(),
        ("1 | 1 | 0 | 0 (0) | 0 | 0 | 0 | 1".to_owned(), false)
    );
    let after_ack = sent()
        .lease("m.1", 1, 500)
        .ack("m.1", 1)
        .lease("m.1", 2, 500);
    assert_eq!(
        after_ack.row(),
        ("1 | 0 | 1 | 0 (0) | 0 | 1 | 0 | 0".to_owned(), false)
    );
    let overlapping = sent()
        .lease("m.1", 1, 5000)
        .lease("m.1", 2, 5000)
        .ack("m.1", 2);
    assert_eq!(
        overlapping.row(),
        ("1 | 0 | 0 | 1 (0) | 0 | 1 | 0 | 0".to_owned(), false)
    );
    let within_the_bound = sent()
        .lease("m.1", 1, 1100)
        .lease("m.1", 2, 5000)
        .ack("m.1", 2);
    assert_eq!(
        within_the_bound.row(),
        ("1 | 0 | 0 | 0 (1) | 0 | 1 | 0 | 0".to_owned(), true)
    );
    let superseded = sent()
        .lease("m.1", 1, 500)
        .lease("m.1", 2, 500)
        .ack("m.1", 1);
    assert_eq!(
        superseded.row(),
        ("1 | 0 | 0 | 0 (0) | 1 | 1 | 0 | 0".to_owned(), false)
    );
    let stored_twice = Record::default()
        .enqueue("m.1", failed(true))
        .lease("m.1", 1, 500)
        .ack("m.1", 1)
        .enqueue("m.2", Answer::Ok)
        .lease("m.2", 1, 500)
        .ack("m.2", 1);
    assert_eq!(
        stored_twice.row(),
        ("1 | 0 | 0 | 0 (0) | 0 | 0 | 1 | 1".to_owned(), true)
    );
    let not_retryable = Record::default().enqueue("m.1", failed(false));
    assert_eq!(
        not_retryable.row(),
        ("1 | 0 | 0 | 0 (0) | 0 | 0 | 0 | 1".to_owned(), false)
    );
}
