//! The judge of recorded histories.
//!
//! Calls overlap, so for most pairs of them nobody knows which took effect first. The judge
//! rejects a history only where the contract is broken *for certain*: a call that began after
//! another had ended came later, and of anything else each order is thought possible.

use std::{collections::BTreeMap, fmt};

use super::{
    event::{Action, Call, Given, What},
    violation::Violation,
};

/// Every message of a record that something happened to which breaks the contract.
///
/// The record must be complete: everything that was sent and can still be delivered was leased
/// and acked before it ended. A message that was stored, acked and stored again under the same
/// id is two messages, and must have two ids in the record.
pub fn judge(calls: &[Call]) -> Vec<Violation> {
    let mut histories: BTreeMap<&str, History> = BTreeMap::new();
    let mut unknown_leases = Vec::new();
    for call in calls {
        match &call.what {
            What::Enqueue { id, delay, .. } => {
                histories
                    .entry(id)
                    .or_default()
                    .enqueues
                    .push((call, *delay));
            }
            What::Lease { answer: None, .. } => unknown_leases.push(call),
            What::Lease {
                visibility,
                answer: Some(given),
            } => {
                for given in given {
                    let history = histories.entry(&given.id).or_default();
                    // Whatever the backend's clock, it showed no less than this when it began.
                    let expires = given.expires.min(call.clock_from + visibility);
                    history.deliveries.push(Delivery {
                        call,
                        given,
                        expires,
                    });
                }
            }
            What::Settle {
                receipt,
                id,
                action,
                answer,
            } => {
                let settlement = Settlement {
                    call,
                    receipt,
                    action: *action,
                    answer: *answer,
                };
                histories
                    .entry(id)
                    .or_default()
                    .settlements
                    .push(settlement);
            }
        }
    }
    let mut all = Vec::new();
    for (id, mut history) in histories {
        history.unknown_leases = &unknown_leases;
        if let Err(breach) = history.judge() {
            all.push(Violation::new(calls, id, breach.what, &breach.by));
        }
    }
    all
}

/// What is broken, and the calls that break it together.
struct Breach<'a> {
    what: String,
    by: Vec<&'a Call>,
}

type Judged<'a> = Result<(), Breach<'a>>;

fn broken<'a>(what: impl Into<String>, by: impl IntoIterator<Item = &'a Call>) -> Judged<'a> {
    Err(Breach {
        what: what.into(),
        by: by.into_iter().collect(),
    })
}

/// What happened to one message.
#[derive(Default)]
struct History<'a> {
    enqueues: Vec<(&'a Call, u64)>,
    deliveries: Vec<Delivery<'a>>,
    settlements: Vec<Settlement<'a>>,
    /// Lease calls that may have been given anything.
    unknown_leases: &'a [&'a Call],
}

#[derive(Clone, Copy)]
struct Delivery<'a> {
    call: &'a Call,
    given: &'a Given,
    /// The earliest that the lease may run out, unless it is extended.
    expires: u64,
}

impl fmt::Display for Delivery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receipt {}", self.given.receipt)
    }
}

#[derive(Clone, Copy)]
struct Settlement<'a> {
    call: &'a Call,
    receipt: &'a str,
    action: Action,
    answer: Option<bool>,
}

impl Settlement<'_> {
    /// Whether it took effect or may have.
    fn may_have_worked(&self) -> bool {
        self.answer != Some(false)
    }

    fn worked(&self) -> bool {
        self.answer == Some(true)
    }
}

/// Whether `a` was over before `b` began. A call whose end nobody saw is never over.
fn before(a: &Call, b: &Call) -> bool {
    a.ended.is_some_and(|ended| ended < b.began)
}

impl<'a> History<'a> {
    fn judge(&self) -> Judged<'a> {
        self.was_stored()?;
        self.receipts_are_fresh()?;
        self.attempts_have_no_gap()?;
        self.gone_is_gone()?;
        for delivery in &self.deliveries {
            self.not_too_early(delivery)?;
            self.nobody_else_had_it(delivery)?;
        }
        for settlement in &self.settlements {
            if settlement.worked() {
                self.was_deserved(settlement)?;
            } else if settlement.answer == Some(false) {
                self.loss_is_explained(settlement)?;
            }
        }
        self.is_accounted_for()
    }

    fn was_stored(&self) -> Judged<'a> {
        let stored_before = |delivery: &&Delivery| {
            self.enqueues
                .iter()
                .any(|(call, _)| !before(delivery.call, call))
        };
        match self.deliveries.iter().find(|d| !stored_before(d)) {
            None => Ok(()),
            Some(early) => broken(
                format!("E1: {early} came before anybody enqueued the message"),
                [early.call],
            ),
        }
    }

    fn receipts_are_fresh(&self) -> Judged<'a> {
        let mut seen: BTreeMap<&str, &Call> = BTreeMap::new();
        for delivery in &self.deliveries {
            if let Some(first) = seen.insert(&delivery.given.receipt, delivery.call) {
                let what = format!("L3: two deliveries have the {delivery}");
                return broken(what, [first, delivery.call]);
            }
        }
        Ok(())
    }

    /// Each attempt is counted once, and once more for each return that takes it back; and none
    /// is left out, unless there is a lease call that nobody knows the answer of.
    fn attempts_have_no_gap(&self) -> Judged<'a> {
        let mut counted: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
        for delivery in &self.deliveries {
            counted
                .entry(delivery.given.attempt)
                .or_default()
                .push(delivery.call);
        }
        let is_return = |s: &&Settlement| s.action == Action::Release && s.may_have_worked();
        let returned = self.settlements.iter().filter(is_return).count();
        for (attempt, calls) in &counted {
            let count = calls.len();
            if count > 1 + returned {
                let what = format!("L3: attempt {attempt} was counted {count} times");
                return broken(what, calls.iter().copied());
            }
        }
        for later in self.deliveries.iter().filter(|_| returned == 0) {
            let ahead = |earlier: &&Delivery| {
                before(earlier.call, later.call) && earlier.given.attempt >= later.given.attempt
            };
            if let Some(earlier) = self.deliveries.iter().find(ahead) {
                let what = "L3: attempts went back, and nobody returned the message";
                return broken(what, [earlier.call, later.call]);
            }
        }
        let last = counted.keys().next_back().copied().unwrap_or(0);
        let is_missing = |attempt: &u32| !counted.contains_key(attempt);
        let missing = (1..=last).filter(is_missing).count();
        if missing > self.unknown_leases.len() {
            let what = format!("L3: attempts {:?} have a gap", counted.keys());
            return broken(what, counted[&last].iter().copied());
        }
        Ok(())
    }

    fn gone_is_gone(&self) -> Judged<'a> {
        let ends = self.settlements.iter();
        for end in ends.filter(|s| s.action.ends() && s.worked()) {
            let after = |delivery: &&Delivery| before(end.call, delivery.call);
            if let Some(after) = self.deliveries.iter().find(after) {
                let Settlement {
                    action, receipt, ..
                } = end;
                return broken(
                    format!("A1, D1: {after} was given after the {action:?} of receipt {receipt}"),
                    [end.call, after.call],
                );
            }
        }
        Ok(())
    }

    /// Neither before the delay of its enqueue nor before that of the nack that gave it up.
    fn not_too_early(&self, delivery: &Delivery<'a>) -> Judged<'a> {
        let too_early =
            |since: &Call, delay: u64| delivery.call.clock_to < since.clock_from + delay;
        let mut enqueues = self.enqueues.iter();
        if enqueues.all(|(call, delay)| too_early(call, *delay)) {
            let enqueues = self.enqueues.iter().map(|(call, _)| *call);
            return broken(
                format!("E4: {delivery} was given before the delay of its enqueue had passed"),
                enqueues.chain([delivery.call]),
            );
        }
        for nack in self.settlements.iter().filter(|s| s.worked()) {
            let Action::Nack(delay) = nack.action else {
                continue;
            };
            // Only the delivery right after it is held back by it.
            let next = self.attempt_of(nack.receipt).map(|attempt| attempt + 1);
            let is_next = next == Some(delivery.given.attempt) && before(nack.call, delivery.call);
            if is_next && too_early(nack.call, delay) {
                let nacked = nack.receipt;
                return broken(
                    format!(
                        "A5: {delivery} was given before the delay of the nack of receipt \
                         {nacked} had passed"
                    ),
                    [nack.call, delivery.call],
                );
            }
        }
        Ok(())
    }

    /// No lease that began before this one was still running for certain.
    fn nobody_else_had_it(&self, delivery: &Delivery<'a>) -> Judged<'a> {
        let all = self.deliveries.iter();
        for other in all.filter(|other| before(other.call, delivery.call)) {
            let given_up = self.of(&other.given.receipt).any(|settlement| {
                settlement.action.settles()
                    && settlement.may_have_worked()
                    && !before(delivery.call, settlement.call)
            });
            if !given_up && delivery.call.clock_to < self.earliest_expiry(other, delivery.call) {
                let (by, owner) = (&delivery.call.by, &other.call.by);
                return broken(
                    format!("L1: {by} was given {delivery} while {owner} had {other}"),
                    [other.call, delivery.call],
                );
            }
        }
        Ok(())
    }

    /// The earliest that the lease of `delivery` may have run out, as it stood at `at`.
    fn earliest_expiry(&self, delivery: &Delivery, at: &Call) -> u64 {
        let extensions: Vec<_> = self
            .of(&delivery.given.receipt)
            .filter(|settlement| settlement.may_have_worked() && !before(at, settlement.call))
            .filter_map(|settlement| match settlement.action {
                Action::Extend(by) => Some((settlement, settlement.call.clock_from + by)),
                _ => None,
            })
            .collect();
        let overridden = |earlier: &Call| {
            extensions.iter().any(|(later, _)| {
                later.worked() && before(later.call, at) && before(earlier, later.call)
            })
        };
        let original = (!overridden(delivery.call)).then_some(delivery.expires);
        let extended = extensions
            .iter()
            .filter(|(e, _)| !overridden(e.call))
            .map(|(_, at)| *at);
        original.into_iter().chain(extended).min().unwrap_or(0)
    }

    /// Nothing that worked used a receipt that was used up or superseded for certain.
    fn was_deserved(&self, settlement: &Settlement<'a>) -> Judged<'a> {
        let receipt = settlement.receipt;
        let used_up = |other: &&Settlement| {
            other.worked()
                && other.action.settles()
                && !std::ptr::eq(other.call, settlement.call)
                && (settlement.action.settles() || before(other.call, settlement.call))
        };
        if let Some(other) = self.of(receipt).find(used_up) {
            return broken(
                format!("A4: receipt {receipt} worked after it was used up"),
                [other.call, settlement.call],
            );
        }
        let Some(delivery) = self.delivery_of(receipt) else {
            return Ok(());
        };
        let supersedes = |later: &&Delivery| {
            before(delivery.call, later.call) && before(later.call, settlement.call)
        };
        match self.deliveries.iter().find(supersedes) {
            None => Ok(()),
            Some(later) => broken(
                format!("A2: receipt {receipt} worked after {later} had superseded it"),
                [delivery.call, later.call, settlement.call],
            ),
        }
    }

    /// A receipt is lost only if something else used it up or superseded it.
    fn loss_is_explained(&self, lost: &Settlement<'a>) -> Judged<'a> {
        let used_up = self.of(lost.receipt).any(|other| {
            other.action.settles() && other.may_have_worked() && !before(lost.call, other.call)
        });
        let Some(delivery) = self.delivery_of(lost.receipt) else {
            return Ok(());
        };
        let superseded = self.deliveries.iter().any(|later| {
            later.given.receipt != delivery.given.receipt
                && !before(later.call, delivery.call)
                && !before(lost.call, later.call)
        });
        let mut unknown = self.unknown_leases.iter();
        let by_nobody_knows = unknown.any(|call| !before(lost.call, call));
        // Nobody else is given a message while its lease runs for certain.
        let may_have_run_out = lost.call.clock_to >= self.earliest_expiry(delivery, lost.call);
        if used_up || may_have_run_out && (superseded || by_nobody_knows) {
            return Ok(());
        }
        let what = "was lost, and nothing had superseded or used it up";
        broken(format!("A3: {delivery} {what}"), [delivery.call, lost.call])
    }

    /// At the end of a history everything is acked or dead, so whatever was stored for certain is.
    fn is_accounted_for(&self) -> Judged<'a> {
        let stored = |call: &&Call| matches!(call.what, What::Enqueue { answered: true, .. });
        let stored = self.enqueues.iter().map(|(call, _)| *call).find(stored);
        let is_end = |s: &Settlement| s.action.ends() && s.may_have_worked();
        let ended = self.settlements.iter().any(is_end);
        match stored {
            Some(stored) if !ended => {
                let what = "E1: it was stored, and never came to be acked or dead";
                broken(what, [stored])
            }
            _ => Ok(()),
        }
    }

    fn of(&self, receipt: &str) -> impl Iterator<Item = &Settlement<'a>> {
        self.settlements
            .iter()
            .filter(move |settlement| settlement.receipt == receipt)
    }

    fn delivery_of(&self, receipt: &str) -> Option<&Delivery<'a>> {
        self.deliveries
            .iter()
            .find(|delivery| delivery.given.receipt == receipt)
    }

    fn attempt_of(&self, receipt: &str) -> Option<u32> {
        self.delivery_of(receipt)
            .map(|delivery| delivery.given.attempt)
    }
}
