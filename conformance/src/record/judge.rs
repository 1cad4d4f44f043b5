//! The judge of recorded histories.
//!
//! Calls overlap, so for most pairs of them the order is unknown. The judge rejects a history only
//! if it breaks the contract in every possible order. A call that began after another had ended
//! came later; all other orders are possible.

use std::{collections::BTreeMap, fmt};

use super::{
    event::{Call, Operation, ReceiptAction, RecordedDelivery},
    violation::Violation,
};

/// Returns a violation for each message for which the contract was broken.
///
/// The record must be complete: every message that was stored and can still be delivered is leased
/// and acked before the record ends. If an id is stored again after an ack, that is another message
/// and needs another id in the record.
pub fn judge(calls: &[Call]) -> Vec<Violation> {
    let mut histories: BTreeMap<&str, MessageHistory> = BTreeMap::new();
    let mut unknown_leases = Vec::new();
    for call in calls {
        match &call.operation {
            Operation::Enqueue { id, delay, .. } => {
                let history = histories.entry(id).or_default();
                history.enqueues.push((call, *delay));
            }
            Operation::Lease { answer: None, .. } => unknown_leases.push(call),
            Operation::Lease {
                visibility,
                answer: Some(deliveries),
            } => {
                for delivery in deliveries {
                    let history = histories.entry(&delivery.id).or_default();
                    // Whatever the backend's clock is, it showed at least this when the call began.
                    let expires = delivery.expires.min(call.clock_from + visibility);
                    history.leases.push(Lease {
                        call,
                        delivery,
                        expires,
                    });
                }
            }
            Operation::Settle {
                receipt,
                id,
                action,
                answer,
            } => {
                let history = histories.entry(id).or_default();
                history.settlements.push(Settlement {
                    call,
                    receipt,
                    action: *action,
                    answer: *answer,
                });
            }
        }
    }
    let mut violations = Vec::new();
    for (id, mut history) in histories {
        history.unknown_leases = &unknown_leases;
        if let Err(breach) = history.judge() {
            violations.push(Violation::new(calls, id, breach.why, &breach.broken_by));
        }
    }
    violations
}

/// A violation without its timeline.
struct Breach<'a> {
    why: String,
    broken_by: Vec<&'a Call>,
}

type Judged<'a> = Result<(), Breach<'a>>;

fn breach<'a>(why: impl Into<String>, broken_by: impl IntoIterator<Item = &'a Call>) -> Judged<'a> {
    Err(Breach {
        why: why.into(),
        broken_by: broken_by.into_iter().collect(),
    })
}

/// The calls about one message.
#[derive(Default)]
struct MessageHistory<'a> {
    enqueues: Vec<(&'a Call, u64)>,
    leases: Vec<Lease<'a>>,
    settlements: Vec<Settlement<'a>>,
    /// Lease calls without an answer. Each may have leased any message.
    unknown_leases: &'a [&'a Call],
}

#[derive(Clone, Copy)]
struct Lease<'a> {
    call: &'a Call,
    delivery: &'a RecordedDelivery,
    /// The earliest time at which the lease may expire, unless it is extended.
    expires: u64,
}

impl fmt::Display for Lease<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receipt {}", self.delivery.receipt)
    }
}

#[derive(Clone, Copy)]
struct Settlement<'a> {
    call: &'a Call,
    receipt: &'a str,
    action: ReceiptAction,
    answer: Option<bool>,
}

impl Settlement<'_> {
    fn may_have_worked(&self) -> bool {
        self.answer != Some(false)
    }

    fn worked(&self) -> bool {
        self.answer == Some(true)
    }
}

/// Whether `a` had ended before `b` began. A call without an end never has.
fn before(a: &Call, b: &Call) -> bool {
    a.ended.is_some_and(|ended| ended < b.began)
}

impl<'a> MessageHistory<'a> {
    fn judge(&self) -> Judged<'a> {
        self.was_stored()?;
        self.receipts_are_fresh()?;
        self.is_met_once_by_a_call()?;
        self.attempts_have_no_gap()?;
        self.ended_is_not_delivered()?;
        for lease in &self.leases {
            self.not_too_early(lease)?;
            self.is_exclusive(lease)?;
        }
        for settlement in &self.settlements {
            if settlement.worked() {
                self.receipt_was_current(settlement)?;
            } else if settlement.answer == Some(false) {
                self.loss_is_explained(settlement)?;
            }
        }
        self.is_accounted_for()
    }

    fn was_stored(&self) -> Judged<'a> {
        let stored_before =
            |lease: &&Lease| (self.enqueues.iter()).any(|(call, _)| !before(lease.call, call));
        match self.leases.iter().find(|lease| !stored_before(lease)) {
            None => Ok(()),
            Some(early) => breach(
                format!("E1: {early} was delivered before the message was enqueued"),
                [early.call],
            ),
        }
    }

    fn receipts_are_fresh(&self) -> Judged<'a> {
        let mut seen: BTreeMap<&str, &Call> = BTreeMap::new();
        for lease in &self.leases {
            if let Some(first) = seen.insert(&lease.delivery.receipt, lease.call) {
                let why = format!("L3: two deliveries have the {lease}");
                return breach(why, [first, lease.call]);
            }
        }
        Ok(())
    }

    fn is_met_once_by_a_call(&self) -> Judged<'a> {
        // The deliveries of a call stand next to each other.
        let is_twice = |pair: &&[Lease]| std::ptr::eq(pair[0].call, pair[1].call);
        match self.leases.windows(2).find(is_twice) {
            None => Ok(()),
            Some(pair) => breach("L4: one call delivered the message twice", [pair[0].call]),
        }
    }

    /// Each attempt is counted once, and once more for each release. None is missing, unless a
    /// lease call without an answer may have taken it.
    fn attempts_have_no_gap(&self) -> Judged<'a> {
        let mut counted: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
        for lease in &self.leases {
            let calls = counted.entry(lease.delivery.attempt).or_default();
            calls.push(lease.call);
        }
        let is_release =
            |s: &&Settlement| s.action == ReceiptAction::Release && s.may_have_worked();
        let released = self.settlements.iter().filter(is_release).count();
        for (attempt, calls) in &counted {
            let count = calls.len();
            if count > 1 + released {
                let why = format!("L3: attempt {attempt} was counted {count} times");
                return breach(why, calls.iter().copied());
            }
        }
        for later in self.leases.iter().filter(|_| released == 0) {
            let not_less = |earlier: &&Lease| {
                before(earlier.call, later.call)
                    && earlier.delivery.attempt >= later.delivery.attempt
            };
            if let Some(earlier) = self.leases.iter().find(not_less) {
                let why = "L3: attempts went back without a release";
                return breach(why, [earlier.call, later.call]);
            }
        }
        let last = counted.keys().next_back().copied().unwrap_or(0);
        let is_missing = |attempt: &u32| !counted.contains_key(attempt);
        let missing = (1..=last).filter(is_missing).count();
        if missing > self.unknown_leases.len() {
            let why = format!("L3: attempts {:?} have a gap", counted.keys());
            return breach(why, counted[&last].iter().copied());
        }
        Ok(())
    }

    fn ended_is_not_delivered(&self) -> Judged<'a> {
        let ends = self.settlements.iter();
        for end in ends.filter(|s| s.action.ends() && s.worked()) {
            let after = |lease: &&Lease| before(end.call, lease.call);
            if let Some(after) = self.leases.iter().find(after) {
                let Settlement {
                    action, receipt, ..
                } = end;
                return breach(
                    format!("A1, D1: {after} came after the {action:?} of receipt {receipt}"),
                    [end.call, after.call],
                );
            }
        }
        Ok(())
    }

    /// Not before the delay of the enqueue, and not before the delay of the last nack.
    fn not_too_early(&self, lease: &Lease<'a>) -> Judged<'a> {
        let too_early = |since: &Call, delay: u64| lease.call.clock_to < since.clock_from + delay;
        let mut enqueues = self.enqueues.iter();
        if enqueues.all(|(call, delay)| too_early(call, *delay)) {
            let enqueues = self.enqueues.iter().map(|(call, _)| *call);
            return breach(
                format!("E4: {lease} came before the delay of its enqueue had passed"),
                enqueues.chain([lease.call]),
            );
        }
        for nack in self.settlements.iter().filter(|s| s.worked()) {
            let ReceiptAction::Nack(delay) = nack.action else {
                continue;
            };
            // A nack delays only the next delivery.
            let attempt = self.lease_of(nack.receipt).map(|l| l.delivery.attempt);
            let is_next = attempt.map(|attempt| attempt + 1) == Some(lease.delivery.attempt);
            if is_next && before(nack.call, lease.call) && too_early(nack.call, delay) {
                let nacked = nack.receipt;
                return breach(
                    format!(
                        "A5: {lease} came before the nack delay of receipt {nacked} had passed"
                    ),
                    [nack.call, lease.call],
                );
            }
        }
        Ok(())
    }

    /// No earlier lease was certainly still running.
    fn is_exclusive(&self, lease: &Lease<'a>) -> Judged<'a> {
        let all = self.leases.iter();
        for other in all.filter(|other| before(other.call, lease.call)) {
            let settled = self.uses_of(&other.delivery.receipt).any(|settlement| {
                settlement.action.settles()
                    && settlement.may_have_worked()
                    && !before(lease.call, settlement.call)
            });
            if !settled && lease.call.clock_to < self.earliest_expiry(other, lease.call) {
                let (by, owner) = (&lease.call.by, &other.call.by);
                return breach(
                    format!("L1: {by} leased {lease} while {owner} had {other}"),
                    [other.call, lease.call],
                );
            }
        }
        Ok(())
    }

    /// The earliest time at which `lease` may have expired, as known at `at`.
    fn earliest_expiry(&self, lease: &Lease, at: &Call) -> u64 {
        let extensions: Vec<_> = self
            .uses_of(&lease.delivery.receipt)
            .filter(|settlement| settlement.may_have_worked() && !before(at, settlement.call))
            .filter_map(|settlement| match settlement.action {
                ReceiptAction::Extend(by) => Some((settlement, settlement.call.clock_from + by)),
                _ => None,
            })
            .collect();
        let overridden = |earlier: &Call| {
            extensions.iter().any(|(later, _)| {
                later.worked() && before(later.call, at) && before(earlier, later.call)
            })
        };
        let original = (!overridden(lease.call)).then_some(lease.expires);
        let extended = extensions
            .iter()
            .filter(|(e, _)| !overridden(e.call))
            .map(|(_, at)| *at);
        original.into_iter().chain(extended).min().unwrap_or(0)
    }

    /// The receipt of an applied action was not certainly settled or superseded before.
    fn receipt_was_current(&self, settlement: &Settlement<'a>) -> Judged<'a> {
        let receipt = settlement.receipt;
        let settled = |other: &&Settlement| {
            other.worked()
                && other.action.settles()
                && !std::ptr::eq(other.call, settlement.call)
                && (settlement.action.settles() || before(other.call, settlement.call))
        };
        if let Some(other) = self.uses_of(receipt).find(settled) {
            return breach(
                format!("A4: receipt {receipt} worked after it was settled"),
                [other.call, settlement.call],
            );
        }
        let Some(lease) = self.lease_of(receipt) else {
            return Ok(());
        };
        let supersedes =
            |later: &&Lease| before(lease.call, later.call) && before(later.call, settlement.call);
        match self.leases.iter().find(supersedes) {
            None => Ok(()),
            Some(later) => breach(
                format!("A2: receipt {receipt} worked after {later} had superseded it"),
                [lease.call, later.call, settlement.call],
            ),
        }
    }

    /// A receipt is lost only if it was settled or superseded.
    fn loss_is_explained(&self, lost: &Settlement<'a>) -> Judged<'a> {
        let settled = self.uses_of(lost.receipt).any(|other| {
            other.action.settles() && other.may_have_worked() && !before(lost.call, other.call)
        });
        let Some(lease) = self.lease_of(lost.receipt) else {
            return Ok(());
        };
        let superseded = self.leases.iter().any(|later| {
            later.delivery.receipt != lease.delivery.receipt
                && !before(later.call, lease.call)
                && !before(lost.call, later.call)
        });
        let mut unknown = self.unknown_leases.iter();
        let superseded_by_unknown = unknown.any(|call| !before(lost.call, call));
        // While the lease certainly runs, no other call can have leased the message.
        let may_have_expired = lost.call.clock_to >= self.earliest_expiry(lease, lost.call);
        if settled || may_have_expired && (superseded || superseded_by_unknown) {
            return Ok(());
        }
        breach(
            format!("A3: {lease} was lost, but it was neither settled nor superseded"),
            [lease.call, lost.call],
        )
    }

    /// A message that was certainly stored is acked or dead at the end.
    fn is_accounted_for(&self) -> Judged<'a> {
        let stored = |call: &&Call| {
            let stored = &call.operation;
            matches!(stored, Operation::Enqueue { answered: true, .. })
        };
        let stored = self.enqueues.iter().map(|(call, _)| *call).find(stored);
        let is_end = |s: &Settlement| s.action.ends() && s.may_have_worked();
        let ended = self.settlements.iter().any(is_end);
        match stored {
            Some(stored) if !ended => {
                let why = "E1: the message was stored, but never acked or made a dead letter";
                breach(why, [stored])
            }
            _ => Ok(()),
        }
    }

    fn uses_of(&self, receipt: &str) -> impl Iterator<Item = &Settlement<'a>> {
        self.settlements
            .iter()
            .filter(move |settlement| settlement.receipt == receipt)
    }

    fn lease_of(&self, receipt: &str) -> Option<&Lease<'a>> {
        self.leases
            .iter()
            .find(|lease| lease.delivery.receipt == receipt)
    }
}
