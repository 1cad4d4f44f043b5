//! A rig that sees nothing would find nothing: records that are broken in each way.

use std::time::Duration;

use queue_conformance::record::{Call, Millis, Operation, ReceiptAction, RecordedDelivery};

use crate::{
    fault::Fault,
    rounds::{Outcome, Round, Times},
    table::Table,
    told::{Answer, Told},
};

/// A record in which calls follow each other, a second each.
#[derive(Default)]
struct Record(Vec<Told>);

impl Record {
    fn call(mut self, what: Operation, answer: Answer) -> Self {
        let second = self.0.len() as u64 + 1;
        let failed = matches!(answer, Answer::Failed { .. });
        self.0.push(Told {
            call: Call {
                by: "client".to_owned(),
                number: second,
                part: 0,
                began: second * 1_000_000_000,
                ended: (!failed).then_some(second * 1_000_000_000 + 1),
                clock_from: second * 1000,
                clock_to: if failed { Millis::MAX } else { second * 1000 },
                operation: what,
            },
            answer,
        });
        self
    }

    fn enqueue(self, id: &str, answer: Answer) -> Self {
        let what = Operation::Enqueue {
            id: id.to_owned(),
            delay: 0,
            answered: matches!(answer, Answer::Given),
        };
        self.call(what, answer)
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
        self.call(Operation::Lease { visibility, answer }, Answer::Given)
    }

    fn ack(self, id: &str, attempt: u32) -> Self {
        let what = Operation::Settle {
            receipt: format!("{id}/{attempt}"),
            id: id.to_owned(),
            action: ReceiptAction::Ack,
            answer: Some(true),
        };
        self.call(what, Answer::Given)
    }

    /// The row that the table has for it, up to the errors, and whether it is acceptable.
    fn row(self) -> (String, bool) {
        let times = Times {
            election: Duration::ZERO,
            back: Duration::ZERO,
            stall: Duration::ZERO,
        };
        let round = Round {
            fault: Fault::KillPrimary,
            is_noisy: false,
            began: 0,
            outcome: Outcome::Survived(times),
        };
        let table = Table::new(&[round], &self.0);
        let text = table.to_string();
        let row = text.lines().nth(2).expect("the first row");
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        (columns[2..10].join(" | "), table.verdict().is_ok())
    }
}

fn failed(is_retryable: bool) -> Answer {
    Answer::Failed {
        why: "as asked".to_owned(),
        is_retryable,
    }
}

pub(crate) fn the_table_shows_what_is_broken() {
    // Messages, lost, after ack, overlapping (explained), other, duplicated, stored twice, errors.
    let sent = || Record::default().enqueue("m.1", Answer::Given);
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
        .enqueue("m.2", Answer::Given)
        .lease("m.2", 1, 500)
        .ack("m.2", 1);
    assert_eq!(
        stored_twice.row(),
        ("1 | 0 | 0 | 0 (0) | 0 | 0 | 1 | 1".to_owned(), true)
    );
    let hopeless = Record::default().enqueue("m.1", failed(false));
    assert_eq!(
        hopeless.row(),
        ("1 | 0 | 0 | 0 (0) | 0 | 0 | 0 | 1".to_owned(), false)
    );
}
