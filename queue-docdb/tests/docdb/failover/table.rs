//! What happened to the messages, round by round.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt, fs,
    time::Duration,
};

use queue_conformance::{
    Line,
    record::{Call, Moment, Operation, ReceiptAction, Violation, judge},
};

use super::{
    client::id_of_copy,
    report::{Answer, Report},
    round::{Outcome, Round},
};

/// By how much a client's estimate of the server's time may be wrong: half a round trip to a
/// busy server. The members share this machine's clock. Leases are exclusive up to this bound.
pub(crate) const CLOCK_BOUND: Duration = Duration::from_millis(250);

/// The outcome of a run, one row for each round.
pub(crate) struct Table {
    rows: Vec<Row>,
    violations: Vec<Violation>,
    /// Errors that are not retryable, and how often they occurred.
    not_retryable: BTreeMap<String, usize>,
    record: Vec<Call>,
}

/// The messages first sent in a round.
#[derive(Default)]
struct Row {
    scenario: String,
    times: String,
    messages: usize,
    lost: usize,
    /// Delivered again without a nack or a release.
    duplicated: usize,
    /// Stored again by a retried enqueue, after the first copy was acked.
    stored_twice: usize,
    after_ack: usize,
    overlapping: usize,
    /// Overlaps that the clock bound explains.
    within_bound: usize,
    /// Other violations of the contract.
    other: usize,
    errors: usize,
}

/// A message with all its copies.
#[derive(Default)]
struct Message {
    first_sent: Moment,
    /// An enqueue was answered with `Duplicate`.
    is_duplicate: bool,
    copies: BTreeSet<String>,
    deliveries: usize,
    released: usize,
    may_be_acked: bool,
}

impl Table {
    pub(crate) fn new(rounds: &[Round], reports: &[Report]) -> Self {
        let mut rows: Vec<Row> = rounds.iter().map(Row::new).collect();
        let began: Vec<Moment> = rounds.iter().map(|round| round.began).collect();
        let row_of = |moment| began.partition_point(|began| *began <= moment).max(1) - 1;
        let mut not_retryable = BTreeMap::new();
        for report in reports {
            if let Answer::Failed {
                error,
                is_retryable,
            } = &report.answer
            {
                rows[row_of(report.call.began)].errors += 1;
                if !is_retryable {
                    *not_retryable.entry(error.clone()).or_default() += 1;
                }
            }
        }
        let messages = messages(reports);
        for message in messages.values() {
            rows[row_of(message.first_sent)].count(message);
        }
        // A duplicate stored nothing.
        let stored = reports
            .iter()
            .filter(|report| !matches!(report.answer, Answer::Duplicate));
        let record: Vec<Call> = stored.map(|report| report.call.clone()).collect();
        let row_of_violation = |violation: &Violation| {
            let sent = messages.get(id_of_copy(violation.message()));
            sent.map_or(0, |message| row_of(message.first_sent))
        };
        let violations = judge(&with_bound(&record, CLOCK_BOUND));
        for violation in &violations {
            let row = &mut rows[row_of_violation(violation)];
            *match violation {
                _ if violation.is_about(Line::E1) => &mut row.lost,
                _ if violation.is_about(Line::A1) => &mut row.after_ack,
                _ if violation.is_about(Line::L1) => &mut row.overlapping,
                _ => &mut row.other,
            } += 1;
        }
        let is_within_bound = |strict: &&Violation| {
            let mut others = violations.iter();
            strict.is_about(Line::L1) && !others.any(|it| it.message() == strict.message())
        };
        for strict in judge(&record).iter().filter(is_within_bound) {
            rows[row_of_violation(strict)].within_bound += 1;
        }
        Self {
            rows,
            violations,
            not_retryable,
            record,
        }
    }

    /// Fails if the contract was violated, or an error was not retryable.
    pub(crate) fn check(&self) -> Result<(), String> {
        let lost: usize = self.rows.iter().map(|row| row.lost).sum();
        if lost == 0 && self.violations.is_empty() && self.not_retryable.is_empty() {
            return Ok(());
        }
        let mut text = String::from("the contract was violated\n");
        for (error, count) in &self.not_retryable {
            text += &format!("{count} errors that are not retryable: {error}\n");
        }
        for violation in self.violations.iter().take(5) {
            text += &format!("\n{violation}\n");
        }
        Err(text)
    }

    /// Writes the record to a file, and returns a line with its path.
    pub(crate) fn save_record(&self) -> String {
        let path = env::temp_dir().join(format!("queue-failover-{}.json", std::process::id()));
        let json = serde_json::to_vec(&self.record).expect("calls are plain data");
        match fs::write(&path, json) {
            Ok(()) => format!("the whole record is in {}\n", path.display()),
            Err(error) => format!("the record could not be written: {error}\n"),
        }
    }
}

/// The calls, with clocks widened by the bound.
fn with_bound(record: &[Call], bound: Duration) -> Vec<Call> {
    let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    let mut record = record.to_vec();
    for call in &mut record {
        call.clock_from = call.clock_from.saturating_sub(bound);
        call.clock_to = call.clock_to.saturating_add(bound);
    }
    record
}

fn messages(reports: &[Report]) -> BTreeMap<&str, Message> {
    let mut messages: BTreeMap<&str, Message> = BTreeMap::new();
    for Report { call, answer } in reports {
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
                        message.released += 1;
                    }
                    _ => {}
                }
            }
            // Clients make no other calls.
            Operation::Store { .. } | Operation::Manage { .. } => {}
        }
    }
    messages
}

impl Row {
    fn new(round: &Round) -> Self {
        let noise = if round.is_noisy { ", noise" } else { "" };
        Self {
            scenario: format!("{}{noise}", round.scenario),
            times: match &round.outcome {
                Outcome::Unavailable(_) => "not available here |  | ".to_owned(),
                Outcome::Measured(times) => [times.election, times.back, times.stall]
                    .map(|time| format!("{:.1} s", time.as_secs_f64()))
                    .join(" | "),
            },
            ..Self::default()
        }
    }

    fn count(&mut self, message: &Message) {
        self.messages += 1;
        let copies = message.copies.len();
        // The judge cannot see this: it is unknown which attempt has stored the message.
        self.lost += usize::from(message.is_duplicate && !message.may_be_acked);
        self.duplicated += usize::from(message.deliveries > copies + message.released);
        self.stored_twice += usize::from(copies > 1);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| scenario | messages | lost | delivered after ack | overlapping (within the clock bound) \
             | other | duplicated | stored twice | failed calls | primary after | consumers after \
             | longest stall |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
        )?;
        let mut sum = Row {
            scenario: "all".to_owned(),
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
            sum.stored_twice += row.stored_twice;
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
            self.scenario,
            self.messages,
            self.lost,
            self.after_ack,
            self.overlapping,
            self.within_bound,
            self.other,
            self.duplicated,
            self.stored_twice,
            self.errors,
            self.times
        )
    }
}
