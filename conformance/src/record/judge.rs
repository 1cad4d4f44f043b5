//! The judge of recorded histories.
//!
//! Calls overlap, so for most pairs of them nobody knows which took effect first. The judge
//! rejects a history only where the contract is broken *for certain*: a call that began after
//! another had ended came later, and of anything else each order is thought possible.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    broken::Broken,
    event::{Action, Call, Given, What},
};

/// Every message of a record that something happened to which breaks the contract.
///
/// The record must be complete: everything that was sent and can still be delivered was leased
/// and acked before it ended. A message that was stored, acked and stored again under the same
/// id is two messages, and must have two ids in the record.
pub fn judge(calls: &[Call]) -> Vec<Broken> {
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
        if let Err(why) = history.judge() {
            all.push(Broken::new(calls, id, why));
        }
    }
    all
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
    fn judge(&self) -> Result<(), String> {
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

    fn was_stored(&self) -> Result<(), String> {
        let stored_before = |delivery: &Delivery| {
            self.enqueues
                .iter()
                .any(|(call, _)| !before(delivery.call, call))
        };
        if self.deliveries.iter().all(stored_before) {
            return Ok(());
        }
        Err("E1: it was delivered before anybody enqueued it".into())
    }

    fn receipts_are_fresh(&self) -> Result<(), String> {
        let receipts: BTreeSet<_> = self.deliveries.iter().map(|d| &d.given.receipt).collect();
        if receipts.len() == self.deliveries.len() {
            return Ok(());
        }
        Err("L3: two deliveries have the same receipt".into())
    }

    /// Each attempt is counted once, and once more for each return that takes it back; and none
    /// is left out, unless there is a lease call that nobody knows the answer of.
    fn attempts_have_no_gap(&self) -> Result<(), String> {
        let mut counted: BTreeMap<u32, usize> = BTreeMap::new();
        for delivery in &self.deliveries {
            *counted.entry(delivery.given.attempt).or_default() += 1;
        }
        let returned = self
            .settlements
            .iter()
            .filter(|settlement| {
                settlement.action == Action::Return && settlement.may_have_worked()
            })
            .count();
        for (attempt, count) in &counted {
            if *count > 1 + returned {
                return Err(format!("L3: attempt {attempt} was counted {count} times"));
            }
        }
        let steps_back = self.deliveries.iter().any(|later| {
            let earlier = self
                .deliveries
                .iter()
                .filter(|d| before(d.call, later.call));
            earlier
                .into_iter()
                .any(|d| d.given.attempt >= later.given.attempt)
        });
        if steps_back && returned == 0 {
            return Err("L3: attempts went back, and nobody returned the message".into());
        }
        let last = counted.keys().next_back().copied().unwrap_or(0);
        let missing = (1..=last)
            .filter(|attempt| !counted.contains_key(attempt))
            .count();
        if missing > self.unknown_leases.len() {
            return Err(format!("L3: attempts {:?} have a gap", counted.keys()));
        }
        Ok(())
    }

    fn gone_is_gone(&self) -> Result<(), String> {
        let acks = self
            .settlements
            .iter()
            .filter(|s| s.action == Action::Ack && s.worked());
        for ack in acks {
            if self
                .deliveries
                .iter()
                .any(|delivery| before(ack.call, delivery.call))
            {
                return Err("A1: it was delivered after its ack".into());
            }
        }
        Ok(())
    }

    /// Neither before the delay of its enqueue nor before that of the nack that gave it up.
    fn not_too_early(&self, delivery: &Delivery) -> Result<(), String> {
        let too_early =
            |since: &Call, delay: u64| delivery.call.clock_to < since.clock_from + delay;
        if self
            .enqueues
            .iter()
            .all(|(call, delay)| too_early(call, *delay))
        {
            return Err("E4: it was delivered before its delay had passed".into());
        }
        for nack in self
            .settlements
            .iter()
            .filter(|settlement| settlement.worked())
        {
            let Action::Nack(delay) = nack.action else {
                continue;
            };
            // Only the delivery right after it is held back by it.
            let next = self.attempt_of(nack.receipt).map(|attempt| attempt + 1);
            let is_next = next == Some(delivery.given.attempt) && before(nack.call, delivery.call);
            if is_next && too_early(nack.call, delay) {
                return Err("A5: it was delivered before its nack's delay had passed".into());
            }
        }
        Ok(())
    }

    /// No lease that began before this one was still running for certain.
    fn nobody_else_had_it(&self, delivery: &Delivery) -> Result<(), String> {
        let earlier = self
            .deliveries
            .iter()
            .filter(|other| before(other.call, delivery.call));
        for other in earlier {
            let given_up = self.of(&other.given.receipt).any(|settlement| {
                settlement.action.settles()
                    && settlement.may_have_worked()
                    && !before(delivery.call, settlement.call)
            });
            if !given_up && delivery.call.clock_to < self.earliest_expiry(other, delivery.call) {
                return Err(format!(
                    "L1: {} was given it while {} had it",
                    delivery.call.by, other.call.by
                ));
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
    fn was_deserved(&self, settlement: &Settlement) -> Result<(), String> {
        let twice = self.of(settlement.receipt).any(|other| {
            other.worked()
                && other.action.settles()
                && !std::ptr::eq(other.call, settlement.call)
                && (settlement.action.settles() || before(other.call, settlement.call))
        });
        if twice {
            return Err("A4: a receipt worked after it was used up".into());
        }
        let Some(delivery) = self.delivery_of(settlement.receipt) else {
            return Ok(());
        };
        let superseded = self
            .deliveries
            .iter()
            .any(|later| before(delivery.call, later.call) && before(later.call, settlement.call));
        if superseded {
            return Err("A2: a receipt worked after a later delivery had superseded it".into());
        }
        Ok(())
    }

    /// A receipt is lost only if something else used it up or superseded it.
    fn loss_is_explained(&self, lost: &Settlement) -> Result<(), String> {
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
        let by_nobody_knows = self
            .unknown_leases
            .iter()
            .any(|call| !before(lost.call, call));
        // Nobody else is given a message while its lease runs for certain.
        let may_have_run_out = lost.call.clock_to >= self.earliest_expiry(delivery, lost.call);
        if used_up || may_have_run_out && (superseded || by_nobody_knows) {
            return Ok(());
        }
        Err("A3: a receipt was lost that nothing had superseded or used up".into())
    }

    /// At the end of a history everything is acked, so whatever was stored for certain was.
    fn is_accounted_for(&self) -> Result<(), String> {
        let stored = self
            .enqueues
            .iter()
            .any(|(call, _)| matches!(call.what, What::Enqueue { answered: true, .. }));
        let acked = self
            .settlements
            .iter()
            .any(|settlement| settlement.action == Action::Ack && settlement.may_have_worked());
        if stored && !acked {
            return Err("E1: it was stored, and never came to be acked".into());
        }
        Ok(())
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
