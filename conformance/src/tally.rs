//! What histories did.
//!
//! A history that does nothing finds nothing. So each run prints what its histories did, and fails
//! if that is too little.

use std::collections::{BTreeMap, HashMap, HashSet};

use queue_api::{DeadReason, Delivery, EnqueueOutcome, LeaseAction, LeaseOutcome};

use crate::harness::{Capability, Harness};

/// How often something happened.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Counts what one history does.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Counts,
    /// The ids stored so far, each with its queue.
    stored: HashSet<String>,
    /// The message and the expiry of each receipt, in milliseconds.
    receipts: HashMap<String, (String, u64)>,
    /// The last receipt of each message.
    last: HashMap<String, String>,
    settled: HashSet<String>,
    exhausted: HashSet<String>,
    is_over: bool,
}

impl Tally {
    pub(crate) fn add(&mut self, what: impl Into<String>, count: u64) {
        *self.counts.entry(what.into()).or_default() += count;
    }

    /// The history is over. What follows only completes its record, so calls are not counted any
    /// more, but what it left behind is.
    pub(crate) fn end_calls(&mut self) {
        self.is_over = true;
    }

    /// Counts something about a call.
    fn add_call(&mut self, what: impl Into<String>, count: u64) {
        if !self.is_over {
            self.add(what, count);
        }
    }

    /// A call was made.
    pub(crate) fn called(&mut self) {
        self.add_call("calls", 1);
    }

    /// Takes the counts.
    pub(crate) fn add_to(self, all: &mut Counts) {
        for (what, count) in self.counts {
            *all.entry(what).or_default() += count;
        }
    }

    /// The answer of an enqueue. A place is a queue and an id.
    pub(crate) fn enqueued(&mut self, place: String, outcome: EnqueueOutcome) {
        match outcome {
            EnqueueOutcome::Duplicate => self.add_call("duplicates", 1),
            EnqueueOutcome::Stored if self.stored.insert(place) => {
                self.add_call("messages stored", 1)
            }
            EnqueueOutcome::Stored => self.add_call("ids used again", 1),
        }
    }

    /// The answer of a lease call.
    pub(crate) fn leased(&mut self, queue: &str, deliveries: &[Delivery]) {
        let what = match deliveries {
            [] => "leases that gave nothing",
            _ => "leases that gave something",
        };
        self.add_call(what, 1);
        for delivery in deliveries {
            let place = format!("{queue}/{}", delivery.id);
            let receipt = delivery.receipt.to_string();
            let expires = crate::record::millis(delivery.lease_expires_at);
            self.receipts
                .insert(receipt.clone(), (place.clone(), expires));
            self.last.insert(place, receipt);
            self.add_call("redeliveries", u64::from(delivery.attempt > 1));
        }
    }

    /// A receipt was used in `queue`: in an ack if `action` is `None`. `now` is in milliseconds.
    pub(crate) fn used(
        &mut self,
        (queue, receipt): (&str, &str),
        action: Option<&LeaseAction>,
        outcome: Option<LeaseOutcome>,
        now: u64,
    ) {
        let action = match action {
            None => "ack",
            Some(LeaseAction::Extend(_)) => "extend",
            Some(LeaseAction::Nack { .. }) => "nack",
            Some(LeaseAction::Release) => "release",
            Some(LeaseAction::DeadLetter { .. }) => "dead-letter",
        };
        let answer = match outcome {
            None => "without an answer",
            Some(LeaseOutcome::Applied) => "applied",
            Some(LeaseOutcome::Lost) => "lost",
        };
        self.add_call(format!("{action} {answer}"), 1);
        let is_applied = outcome == Some(LeaseOutcome::Applied);
        match self.receipts.get(receipt) {
            None => self.add_call("made-up receipts used", 1),
            Some((place, _)) if !place.starts_with(&format!("{queue}/")) => {
                self.add_call("receipts of another queue used", 1);
            }
            Some((place, _)) if self.last[place] != receipt => {
                self.add_call("superseded receipts used", 1);
            }
            Some(_) if self.settled.contains(receipt) => self.add_call("settled receipts used", 1),
            Some((_, expires)) if *expires <= now && action == "ack" && is_applied => {
                self.add_call("expired leases acked", 1);
            }
            Some(_) => {}
        }
        if is_applied && action != "extend" {
            self.settled.insert(receipt.to_owned());
        }
    }

    /// A dead letter was seen: `message` is its name in this history.
    pub(crate) fn saw_dead(&mut self, message: String, reason: &DeadReason) {
        if *reason == DeadReason::AttemptsExhausted && self.exhausted.insert(message) {
            self.add("dead letters whose attempts ran out", 1);
        }
    }
}

/// A kind of histories, with how often something has to happen in each, on average.
#[derive(Debug)]
pub(crate) struct Minimums(&'static [(&'static str, f64, Needs)]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    Admin,
    Faults,
}

use Needs::{Admin, Faults, Nothing};

/// At most half of what the histories do on memory, SQLite and MongoDB, whichever is least.
pub(crate) const RANDOM: Minimums = Minimums(&[
    ("calls", 8.0, Nothing),
    ("leases that gave something", 1.0, Nothing),
    ("redeliveries", 0.25, Nothing),
    ("ack applied", 0.1, Nothing),
    ("extend applied", 0.05, Nothing),
    ("nack applied", 0.05, Nothing),
    ("release applied", 0.05, Nothing),
    ("dead-letter applied", 0.04, Nothing),
    ("expired leases acked", 0.03, Nothing),
    ("superseded receipts used", 0.06, Nothing),
    ("settled receipts used", 0.3, Nothing),
    ("receipts of another queue used", 0.03, Nothing),
    ("made-up receipts used", 0.2, Nothing),
    ("ids used again", 0.1, Nothing),
    ("duplicates", 0.5, Nothing),
    ("waits that ended", 0.1, Nothing),
    ("waits that were dropped", 0.01, Nothing),
    ("dead letters whose attempts ran out", 0.1, Admin),
    ("dead letters redriven", 0.01, Admin),
    ("messages purged", 0.1, Admin),
    ("queues deleted", 0.1, Admin),
]);

/// At most half of what the histories do on memory, SQLite and MongoDB, whichever is least.
pub(crate) const CONCURRENT: Minimums = Minimums(&[
    ("calls", 20.0, Nothing),
    ("leases that gave something", 7.0, Nothing),
    ("redeliveries", 3.0, Nothing),
    ("ack applied", 0.5, Nothing),
    ("extend applied", 0.3, Nothing),
    ("nack applied", 0.3, Nothing),
    ("release applied", 0.2, Nothing),
    ("dead-letter applied", 0.08, Nothing),
    ("expired leases acked", 0.2, Nothing),
    ("superseded receipts used", 1.0, Nothing),
    ("settled receipts used", 1.0, Nothing),
    ("receipts of another queue used", 0.4, Nothing),
    ("ids used again", 0.2, Nothing),
    ("duplicates", 1.5, Nothing),
    ("calls that were dropped", 0.05, Nothing),
    ("waits that were dropped", 0.5, Nothing),
    ("wake-ups of several waits", 0.2, Nothing),
    ("dead letters whose attempts ran out", 1.0, Admin),
    ("dead letters redriven", 1.0, Admin),
    ("messages listed", 1.5, Admin),
    ("messages purged", 0.2, Admin),
    ("queues deleted", 0.05, Admin),
    ("faults that met a call", 0.5, Faults),
]);

/// How many histories to make: as many as asked for, and then more until they have done enough.
///
/// Each minimum is at most half of the average, and there are up to four times as many histories.
/// So a count would have to be an eighth of what is expected to fail by chance. For one that is
/// distributed like independent events and whose expected number is 20 or more, the probability of
/// that is less than one in a million.
pub(crate) struct Goal {
    minimums: &'static Minimums,
    has_admin: bool,
    asked: u64,
    made: u64,
}

impl Goal {
    pub(crate) fn new(minimums: &'static Minimums, harness: &dyn Harness, asked: u64) -> Self {
        let has_admin = harness.capabilities().contains(&Capability::Admin);
        Self {
            minimums,
            has_admin,
            asked,
            made: 0,
        }
    }

    /// Whether to make another history.
    pub(crate) fn goes_on(&mut self, counts: &Counts) -> bool {
        let may_go_on = self.asked > 0 && self.made < 4 * self.asked + 16;
        let goes_on = self.made < self.asked || may_go_on && self.missing(counts).next().is_some();
        self.made += u64::from(goes_on);
        goes_on
    }

    /// Fails if the histories did too little.
    pub(crate) fn check(&self, counts: &Counts) -> Result<(), String> {
        let missing: Vec<_> = self.missing(counts).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (made, missing) = (self.made, missing.join("; "));
        Err(format!(
            "{made} histories did too little to find anything: {missing}"
        ))
    }

    fn missing(&self, counts: &Counts) -> impl Iterator<Item = String> {
        let needed = self.minimums.0.iter().filter(|(.., needs)| match needs {
            Nothing => true,
            Admin => self.has_admin,
            // Only a store knows whether its server can fail.
            Faults => counts.contains_key("faults injected"),
        });
        needed.filter_map(|(what, each, _)| {
            let least = (each * self.asked as f64) as u64;
            let count = counts.get(*what).copied().unwrap_or(0);
            (count < least).then(|| format!("{what}: {count} of at least {least}"))
        })
    }
}
