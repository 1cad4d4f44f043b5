//! Whether answers were true. What is true follows from the contract, from what other processes did,
//! and from what a process saw before and after whose connections nothing disturbed.

use std::collections::BTreeSet;

use queue_api::{DeadReason, EnqueueOutcome, LeaseOutcome, MessageState, Purge};
use queue_conformance::record::ReceiptAction;

use crate::{
    calls::Seen,
    log::{Copy, Event, Leased, REASON, What},
    look::Look,
};

/// One call, and what was there before and after it.
pub(crate) struct Facts<'a> {
    /// All calls of the case.
    pub(crate) events: &'a [Event],
    /// Those that belong to the call.
    pub(crate) own: Vec<&'a Event>,
    /// Those of others meanwhile.
    pub(crate) others: Vec<&'a Event>,
    /// Whether an earlier call may still take effect.
    pub(crate) is_repeat: bool,
    pub(crate) has_time_passed: bool,
    /// Whether an error may have ended a lease call that had leased some.
    pub(crate) may_be_short: bool,
    pub(crate) before: &'a Look,
    pub(crate) after: &'a Look,
    pub(crate) seen: Option<&'a Seen>,
}

/// What was not true.
pub(crate) fn untruths(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for event in &facts.own {
        match &event.what {
            What::Enqueue {
                copies,
                answer: Some(answer),
            } => facts.enqueue(event, copies, answer, &mut wrong),
            What::Lease {
                most,
                answer: Some(answer),
            } => facts.lease(*most, answer, &mut wrong),
            What::Settle {
                uses,
                answer: Some(answer),
            } => facts.settle(event, uses, answer, &mut wrong),
            What::Purge {
                what,
                answer: Some(count),
            } => facts.purge(*what, *count, &mut wrong),
            What::Redrive {
                answer: Some(count),
            } => facts.redrive(*count, &mut wrong),
            What::Delete { is_answered: true } => facts.delete(&mut wrong),
            _ => {}
        }
    }
    if let Some(seen) = facts.seen {
        facts.seen(seen, &mut wrong);
    }
    facts.transaction(&mut wrong);
    wrong
}

impl Facts<'_> {
    /// Whether nothing else happened, so that the answer and the look after say the same.
    fn is_alone(&self) -> bool {
        self.others.is_empty() && !self.is_repeat && !self.has_time_passed
    }

    fn enqueue(
        &self,
        event: &Event,
        copies: &[Copy],
        answer: &[EnqueueOutcome],
        wrong: &mut Vec<String>,
    ) {
        for (copy, outcome) in copies.iter().zip(answer) {
            let is_there = self.after.live.get(&copy.payload);
            match outcome {
                EnqueueOutcome::Stored => {
                    let is_ready = is_there.is_some_and(|it| it.state == MessageState::Ready);
                    if self.is_alone() && !is_ready {
                        wrong.push(format!("E1: {copy:?} was Stored, but is {is_there:?}"));
                    }
                }
                EnqueueOutcome::Duplicate => {
                    if is_there.is_some() || self.was_delivered(copy) {
                        wrong.push(format!("E2: {copy:?} was a Duplicate, but it was stored"));
                    } else if !self.may_be_duplicate(event, copy) {
                        wrong.push(format!("E2: {copy:?} was a Duplicate, but of nothing"));
                    }
                }
            }
        }
    }

    fn was_delivered(&self, copy: &Copy) -> bool {
        let mut leased = self.events.iter().flat_map(|event| match &event.what {
            What::Lease { answer, .. } => answer.as_deref().unwrap_or_default(),
            _ => &[],
        });
        leased.any(|leased| leased.payload == copy.payload)
    }

    /// Whether the queue may have had another message of the same id at some time of the call.
    fn may_be_duplicate(&self, event: &Event, copy: &Copy) -> bool {
        self.events.iter().any(|other| {
            let What::Enqueue { copies, answer } = &other.what else {
                return false;
            };
            let stored = copies.iter().enumerate().filter(|(index, it)| {
                let outcome = answer.as_ref().map(|answer| answer[*index]);
                it.id == copy.id
                    && it.payload != copy.payload
                    && outcome != Some(EnqueueOutcome::Duplicate)
            });
            let mut there = stored.filter(|(_, it)| !self.was_gone_before(event, it));
            other.began < event.returned && there.next().is_some()
        })
    }

    /// Whether this message was certainly acked before the call began.
    fn was_gone_before(&self, call: &Event, copy: &Copy) -> bool {
        self.events.iter().any(|event| {
            event.returned < call.began
                && acked(event)
                    .iter()
                    .any(|leased| leased.payload == copy.payload)
        })
    }

    fn lease(&self, most: usize, answer: &[Leased], wrong: &mut Vec<String>) {
        if self.is_alone() {
            let is_live = |payload: &str, attempts: u32| {
                let copies = self.events.iter().flat_map(|event| match &event.what {
                    What::Enqueue { copies, .. } => copies.as_slice(),
                    _ => &[],
                });
                let mut copies = copies.filter(|copy| copy.payload == payload);
                copies.all(|copy| attempts < copy.max_attempts)
            };
            let ready = self.before.live.iter().filter(|(payload, it)| {
                it.state == MessageState::Ready && is_live(payload, it.attempts)
            });
            let expected = ready.count().min(most);
            let is_short = self.may_be_short && (1..expected).contains(&answer.len());
            if answer.len() != expected && !is_short {
                wrong.push(format!(
                    "L4: {} of {expected} ready messages were leased: {answer:?}",
                    answer.len()
                ));
            }
        }
        let is_unknown = |event: &Event| matches!(event.what, What::Lease { answer: None, .. });
        if self.events.iter().any(is_unknown) {
            return;
        }
        let known: BTreeSet<&str> = self
            .events
            .iter()
            .flat_map(|event| match &event.what {
                What::Lease { answer, .. } => answer.as_deref().unwrap_or_default(),
                _ => &[],
            })
            .map(|leased| leased.payload.as_str())
            .collect();
        for (payload, live) in &self.after.live {
            if live.state == MessageState::Leased && !known.contains(payload.as_str()) {
                wrong.push(format!(
                    "L4: {payload} is leased, and no party has it: {live:?}"
                ));
            }
        }
    }

    fn settle(
        &self,
        event: &Event,
        uses: &[(Leased, ReceiptAction)],
        answer: &[LeaseOutcome],
        wrong: &mut Vec<String>,
    ) {
        for ((leased, action), outcome) in uses.iter().zip(answer) {
            let payload = &leased.payload;
            let live = self.after.live.get(payload);
            let dead = self.after.dead.get(payload);
            let at = |after: &u64| event.clock_from + after;
            let is_true = match (outcome, action) {
                (LeaseOutcome::Applied, ReceiptAction::Ack) => live.is_none() && dead.is_none(),
                _ if !self.is_alone() => true,
                (LeaseOutcome::Lost, _) => {
                    live == self.before.live.get(payload) && dead == self.before.dead.get(payload)
                }
                (_, ReceiptAction::DeadLetter) => dead.is_some_and(
                    |dead| matches!(&dead.reason, DeadReason::Rejected(reason) if reason == REASON),
                ),
                (_, action) => live.is_some_and(|live| match action {
                    ReceiptAction::Extend(by) => {
                        live.state == MessageState::Leased && live.ready_at == at(by)
                    }
                    ReceiptAction::Nack(delay) => {
                        live.state == MessageState::Delayed && live.ready_at == at(delay)
                    }
                    _ => live.state == MessageState::Ready && live.attempts + 1 == leased.attempt,
                }),
            };
            if !is_true {
                wrong.push(format!(
                    "A4, A5: {action:?} of {leased:?} was {outcome:?}, but it is {live:?} {dead:?}"
                ));
            }
        }
    }

    fn purge(&self, what: Purge, count: u64, wrong: &mut Vec<String>) {
        let names = |look: &Look| -> BTreeSet<String> {
            match what {
                Purge::Live => look.live.keys().cloned().collect(),
                Purge::Dead => look.dead.keys().cloned().collect(),
            }
        };
        let (mut before, after) = (names(self.before), names(self.after));
        let left: Vec<_> = before.intersection(&after).cloned().collect();
        if !left.is_empty() {
            wrong.push(format!("M1: the purge has left {left:?}"));
        }
        if what == Purge::Live {
            for event in &self.others {
                if let What::Enqueue { copies, .. } = &event.what {
                    before.extend(copies.iter().map(|copy| copy.payload.clone()));
                }
                if matches!(event.what, What::Redrive { .. }) {
                    before.extend(self.before.dead.keys().cloned());
                    before.retain(|it| !self.after.dead.contains_key(it));
                }
            }
        }
        let gone = before.difference(&after).count() as u64;
        self.count(
            "purged",
            count,
            gone,
            |event| match &event.what {
                What::Purge {
                    what: other,
                    answer,
                } if *other == what => *answer,
                What::Settle { .. } if what == Purge::Live => Some(acked(event).len() as u64),
                What::Redrive { answer } if what == Purge::Dead => *answer,
                What::Delete { .. } => None,
                _ => Some(0),
            },
            wrong,
        );
    }

    fn redrive(&self, count: u64, wrong: &mut Vec<String>) {
        let gone: Vec<&String> = self
            .before
            .dead
            .keys()
            .filter(|it| !self.after.dead.contains_key(*it))
            .collect();
        if self.is_alone() {
            let lost: Vec<_> = gone
                .iter()
                .filter(|it| !self.after.live.contains_key(**it))
                .collect();
            if !lost.is_empty() || !self.after.dead.is_empty() {
                wrong.push(format!(
                    "M1: {lost:?} were lost and {:?} left by a redrive of all",
                    self.after.dead
                ));
            }
        }
        self.count(
            "redriven",
            count,
            gone.len() as u64,
            |event| match &event.what {
                What::Redrive { answer } => *answer,
                What::Purge {
                    what: Purge::Dead,
                    answer,
                } => *answer,
                What::Delete { .. } => None,
                _ => Some(0),
            },
            wrong,
        );
    }

    /// Whether this call's count and those of the others add up to what is `gone`.
    fn count(
        &self,
        verb: &str,
        count: u64,
        gone: u64,
        by_other: impl Fn(&Event) -> Option<u64>,
        wrong: &mut Vec<String>,
    ) {
        let others: Option<u64> = self.others.iter().map(|event| by_other(event)).sum();
        let is_true = match others {
            Some(others) if !self.is_repeat => count + others == gone,
            _ => count <= gone,
        };
        if !is_true {
            wrong.push(format!(
                "M1: {count} were {verb}, but {gone} are gone, {others:?} of them by others"
            ));
        }
    }

    fn delete(&self, wrong: &mut Vec<String>) {
        let is_left =
            |it: &&String| self.after.live.contains_key(*it) || self.after.dead.contains_key(*it);
        let before = self.before.live.keys().chain(self.before.dead.keys());
        let left: Vec<_> = before.filter(is_left).collect();
        if !left.is_empty() {
            wrong.push(format!("M1: the deleted queue has {left:?}"));
        }
    }

    fn seen(&self, seen: &Seen, wrong: &mut Vec<String>) {
        if !self.is_alone() {
            return;
        }
        let reads = |event: &&Event| matches!(event.what, What::Read(_));
        if self.own.iter().all(reads) && self.before != self.after {
            wrong.push(format!(
                "M1: looking changed {:?} to {:?}",
                self.before, self.after
            ));
        }
        let after = self.after;
        let is_true = match seen {
            Seen::Nothing => true,
            Seen::Peeked(live) | Seen::Listed(live) => *live == after.live,
            Seen::Dead(dead) => *dead == after.dead,
            Seen::Stats(stats) => Some(stats) == after.stats.as_ref(),
            Seen::IsListed(is_listed) => Some(*is_listed) == after.is_listed,
        };
        if !is_true {
            wrong.push(format!("S1, M1: {seen:?} was seen, but there is {after:?}"));
        }
    }

    /// Both parts of a transaction take effect, or neither does.
    fn transaction(&self, wrong: &mut Vec<String>) {
        if !self.is_alone() {
            return;
        }
        let parts = self.own.iter().filter(|event| event.is_in_transaction);
        let done = parts.flat_map(|event| match &event.what {
            What::Settle { uses, .. } => {
                let gone =
                    |(leased, _): &(Leased, _)| !self.after.live.contains_key(&leased.payload);
                uses.iter().map(gone).collect()
            }
            What::Enqueue { copies, .. } => {
                let there = |copy: &Copy| self.after.live.contains_key(&copy.payload);
                copies.iter().map(there).collect()
            }
            _ => Vec::new(),
        });
        let done: BTreeSet<bool> = done.collect();
        if done.len() > 1 {
            wrong.push(format!("a transaction was done in part: {:?}", self.after));
        }
    }
}

/// The messages that were stored, and that no call may have removed. `last` is what is left in the end.
pub(crate) fn lost(events: &[Event], last: &Look) -> Vec<String> {
    let is_removal = |event: &Event| matches!(event.what, What::Purge { .. } | What::Delete { .. });
    if events.iter().any(is_removal) {
        return Vec::new();
    }
    let stored = events.iter().flat_map(|event| match &event.what {
        What::Enqueue {
            copies,
            answer: Some(answer),
        } => copies.iter().zip(answer).collect(),
        _ => Vec::new(),
    });
    let stored = stored.filter(|(_, outcome)| **outcome == EnqueueOutcome::Stored);
    let may_be_acked = |copy: &Copy| {
        events.iter().any(|event| match &event.what {
            What::Settle { uses, answer } => uses.iter().enumerate().any(|(index, it)| {
                let outcome = answer.as_ref().map(|answer| answer[index]);
                it.0.payload == copy.payload
                    && it.1 == ReceiptAction::Ack
                    && outcome != Some(LeaseOutcome::Lost)
            }),
            _ => false,
        })
    };
    let lost =
        stored.filter(|(copy, _)| !may_be_acked(copy) && !last.dead.contains_key(&copy.payload));
    lost.map(|(copy, _)| format!("E1: {copy:?} was stored and is lost"))
        .collect()
}

/// The messages that a call has certainly acked.
fn acked(event: &Event) -> Vec<&Leased> {
    let What::Settle {
        uses,
        answer: Some(answer),
    } = &event.what
    else {
        return Vec::new();
    };
    uses.iter()
        .zip(answer)
        .filter(|((_, action), outcome)| {
            *action == ReceiptAction::Ack && **outcome == LeaseOutcome::Applied
        })
        .map(|((leased, _), _)| leased)
        .collect()
}
