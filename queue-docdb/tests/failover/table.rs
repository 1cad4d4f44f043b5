//! What became of the messages, round by round.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt, fs,
    time::Duration,
};

use queue_conformance::{
    Line,
    record::{Call, Moment, Operation, ReceiptAction, Violation, judge},
};

use crate::{
    client::id_of_copy,
    rounds::{Outcome, Round},
    told::{Answer, Told},
};

/// How far a client's idea of the server's time may be off: half a round trip of a busy
/// server, and what the members' clocks differ by, which here are all the same machine's. A
/// lease is exclusive up to this, and no closer.
pub(crate) const CLOCK_BOUND: Duration = Duration::from_millis(250);

/// The outcome of a run, a row for each round.
pub(crate) struct Table {
    rows: Vec<Row>,
    broken: Vec<Violation>,
    /// Errors that a client could not know to be passing, and how often.
    unexpected: BTreeMap<String, usize>,
    record: Vec<Call>,
}

/// The messages that were first sent in a round.
#[derive(Default)]
struct Row {
    fault: String,
    times: String,
    messages: usize,
    lost: usize,
    /// Delivered again, though nobody had given them up.
    duplicated: usize,
    /// Stored again by a repeated enqueue, after the first copy had been acked.
    copied: usize,
    after_ack: usize,
    overlapping: usize,
    /// Overlaps that the clock bound explains.
    within_bound: usize,
    /// Whatever else breaks the contract.
    other: usize,
    errors: usize,
}

/// What is known of a message, in all of its copies.
#[derive(Default)]
struct Message {
    first_sent: Moment,
    /// Its sender was told that it is there already, and no more.
    is_duplicate: bool,
    copies: BTreeSet<String>,
    deliveries: usize,
    given_up: usize,
    may_be_acked: bool,
}

impl Table {
    pub(crate) fn new(rounds: &[Round], told: &[Told]) -> Self {
        let mut rows: Vec<Row> = rounds.iter().map(Row::new).collect();
        let began: Vec<Moment> = rounds.iter().map(|round| round.began).collect();
        let row_of = |moment| began.partition_point(|began| *began <= moment).max(1) - 1;
        let mut unexpected = BTreeMap::new();
        for told in told {
            if let Answer::Failed { why, is_retryable } = &told.answer {
                rows[row_of(told.call.began)].errors += 1;
                if !is_retryable {
                    *unexpected.entry(why.clone()).or_default() += 1;
                }
            }
        }
        let messages = messages(told);
        for message in messages.values() {
            rows[row_of(message.first_sent)].count(message);
        }
        // A call that found its message there already stored nothing.
        let stored = told
            .iter()
            .filter(|told| !matches!(told.answer, Answer::Duplicate));
        let record: Vec<Call> = stored.map(|told| told.call.clone()).collect();
        let row_of_broken = |broken: &Violation| {
            let sent = messages.get(id_of_copy(broken.message()));
            sent.map_or(0, |message| row_of(message.first_sent))
        };
        let broken = judge(&with_bound(&record, CLOCK_BOUND));
        for broken in &broken {
            let row = &mut rows[row_of_broken(broken)];
            *match broken {
                _ if broken.is_about(Line::E1) => &mut row.lost,
                _ if broken.is_about(Line::A1) => &mut row.after_ack,
                _ if broken.is_about(Line::L1) => &mut row.overlapping,
                _ => &mut row.other,
            } += 1;
        }
        let explained = |strict: &Violation| {
            strict.is_about(Line::L1) && !broken.iter().any(|it| it.message() == strict.message())
        };
        for strict in judge(&record).iter().filter(|strict| explained(strict)) {
            rows[row_of_broken(strict)].within_bound += 1;
        }
        Self {
            rows,
            broken,
            unexpected,
            record,
        }
    }

    /// Fails where a message was lost or delivered against the contract, or a client was told
    /// that a repeat is of no use.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let lost: usize = self.rows.iter().map(|row| row.lost).sum();
        if lost == 0 && self.broken.is_empty() && self.unexpected.is_empty() {
            return Ok(());
        }
        let mut text = String::from("the contract did not survive\n");
        for (why, times) in &self.unexpected {
            text += &format!("{times} errors that no client could know to be passing: {why}\n");
        }
        for broken in self.broken.iter().take(5) {
            text += &format!("\n{broken}\n");
        }
        Err(text)
    }

    /// Keeps the record as a file, and says where it is.
    pub(crate) fn keep(&self) -> String {
        let path = env::temp_dir().join(format!("queue-failover-{}.json", std::process::id()));
        let json = serde_json::to_vec(&self.record).expect("calls are plain data");
        match fs::write(&path, json) {
            Ok(()) => format!("the whole record is in {}\n", path.display()),
            Err(error) => format!("the record could not be kept: {error}\n"),
        }
    }
}

/// The calls with what the backend's clock may have been off.
fn with_bound(record: &[Call], bound: Duration) -> Vec<Call> {
    let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    let mut record = record.to_vec();
    for call in &mut record {
        call.clock_from = call.clock_from.saturating_sub(bound);
        call.clock_to = call.clock_to.saturating_add(bound);
    }
    record
}

fn messages(told: &[Told]) -> BTreeMap<&str, Message> {
    let mut messages: BTreeMap<&str, Message> = BTreeMap::new();
    for Told { call, answer, .. } in told {
        match &call.operation {
            Operation::Enqueue { id, .. } => {
                let message = messages.entry(id_of_copy(id)).or_insert_with(|| Message {
                    first_sent: call.began,
                    ..Message::default()
                });
                message.first_sent = message.first_sent.min(call.began);
                message.is_duplicate |= matches!(answer, Answer::Duplicate);
            }
            Operation::Lease { answer, .. } => {
                for given in answer.iter().flatten() {
                    let message = messages.entry(id_of_copy(&given.id)).or_default();
                    message.deliveries += 1;
                    message.copies.insert(given.id.clone());
                }
            }
            Operation::Settle {
                id, action, answer, ..
            } => {
                let message = messages.entry(id_of_copy(id)).or_default();
                match action {
                    ReceiptAction::Ack => message.may_be_acked |= *answer != Some(false),
                    ReceiptAction::Nack(_) | ReceiptAction::Release if *answer == Some(true) => {
                        message.given_up += 1;
                    }
                    _ => {}
                }
            }
        }
    }
    messages
}

impl Row {
    fn new(round: &Round) -> Self {
        let noise = if round.is_noisy { ", noise" } else { "" };
        Self {
            fault: format!("{}{noise}", round.fault),
            times: match &round.outcome {
                Outcome::Unavailable(_) => "not available here |  | ".to_owned(),
                Outcome::Survived(times) => [times.election, times.back, times.stall]
                    .map(|time| format!("{:.1} s", time.as_secs_f64()))
                    .join(" | "),
            },
            ..Self::default()
        }
    }

    fn count(&mut self, message: &Message) {
        self.messages += 1;
        let copies = message.copies.len();
        // The judge cannot miss it: which of the sender's attempts had stored it is not known.
        self.lost += usize::from(message.is_duplicate && !message.may_be_acked);
        self.duplicated += usize::from(message.deliveries > copies + message.given_up);
        self.copied += usize::from(copies > 1);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| fault | messages | lost | delivered after ack | overlapping (within the clock bound) \
             | other | duplicated | stored twice | failed calls | primary after | consumers after \
             | longest stall |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        let mut sum = Row {
            fault: "all".to_owned(),
            times: " |  | ".to_owned(),
            ..Row::default()
        };
        for row in &self.rows {
            writeln!(f, "{row}")?;
            sum.messages += row.messages;
            sum.lost += row.lost;
            sum.after_ack += row.after_ack;
            sum.overlapping += row.overlapping;
            sum.within_bound += row.within_bound;
            sum.other += row.other;
            sum.duplicated += row.duplicated;
            sum.copied += row.copied;
            sum.errors += row.errors;
        }
        writeln!(f, "{sum}")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} | {} | {} | {} ({}) | {} | {} | {} | {} | {} |",
            self.fault,
            self.messages,
            self.lost,
            self.after_ack,
            self.overlapping,
            self.within_bound,
            self.other,
            self.duplicated,
            self.copied,
            self.errors,
            self.times
        )
    }
}
