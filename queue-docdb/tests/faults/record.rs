//! The log of a case as a record for the judge of recorded histories.

use std::collections::{BTreeMap, BTreeSet};

use queue_api::{EnqueueOutcome, LeaseOutcome, Purge};
use queue_conformance::record::{Call, Millis, Moment, Operation, ReceiptAction, RecordedDelivery};

use crate::{
    log::{Copy, Event, Leased, VISIBILITY, What},
    look::Look,
};

/// The receipt of a message that was removed without one.
const NO_RECEIPT: &str = "none";

/// The record of these calls. `last` is what is left when all leases have ended and everything that
/// can be leased is acked.
pub(crate) fn record(events: &[Event], last: &Look) -> Vec<Call> {
    let names = Names::of(events);
    let mut record = Vec::new();
    for event in events {
        let call = |part, operation, is_answered: bool| Call {
            by: event.by.to_owned(),
            number: event.number,
            part,
            began: event.began,
            ended: is_answered.then_some(event.returned),
            clock_from: event.clock_from,
            clock_to: if is_answered {
                event.clock_to
            } else {
                Millis::MAX
            },
            operation,
        };
        let is_answered = event.is_answered();
        match &event.what {
            What::Enqueue { copies, answer } => {
                for (part, copy) in copies.iter().enumerate() {
                    let outcome = answer.as_ref().map(|answer| answer[part]);
                    // A duplicate stores nothing.
                    if outcome != Some(EnqueueOutcome::Duplicate) {
                        let operation = stored(&copy.payload, outcome.is_some());
                        record.push(call(part, operation, is_answered));
                    }
                }
            }
            What::Lease { answer, .. } => {
                let delivery = |it: &Leased| RecordedDelivery {
                    id: names.of_receipt(it),
                    receipt: it.receipt.clone(),
                    attempt: it.attempt,
                    expires: it.expires,
                };
                let operation = Operation::Lease {
                    visibility: VISIBILITY.as_millis() as Millis,
                    answer: answer
                        .as_ref()
                        .map(|all| all.iter().map(delivery).collect()),
                };
                record.push(call(0, operation, is_answered));
            }
            What::Settle { uses, answer } => {
                for (part, (leased, action)) in uses.iter().enumerate() {
                    let outcome = answer.as_ref().map(|answer| answer[part]);
                    let operation = Operation::Settle {
                        receipt: leased.receipt.clone(),
                        id: names.of_receipt(leased),
                        action: *action,
                        answer: outcome.map(|outcome| outcome == LeaseOutcome::Applied),
                    };
                    record.push(call(part, operation, is_answered));
                }
            }
            // Which of the messages it removed is not known. It may have been any of these.
            What::Purge { what, .. } => {
                for (id, receipt) in names.receipts_before(event, *what == Purge::Dead) {
                    record.push(call(0, removed(id, receipt), false));
                }
            }
            What::Delete { .. } => {
                for (id, receipt) in names.receipts_before(event, false) {
                    record.push(call(0, removed(id, receipt), false));
                }
            }
            What::Redrive { .. } => {
                for id in names.redriven.values() {
                    record.push(call(0, stored(id, false), false));
                }
            }
        }
    }
    let Some(first) = record.first().cloned() else {
        return record;
    };
    // A lease call may have made these dead letters at any time.
    let dead = last.dead.keys().map(|payload| names.last_of(payload));
    let dead: BTreeSet<String> = dead.chain(names.mortal.iter().cloned()).collect();
    let mut receipts: Vec<(String, String)> = Vec::new();
    for id in dead {
        let own = names.of_receipts.iter().filter(|(_, it)| **it == id);
        receipts.extend(own.map(|(receipt, id)| (id.clone(), receipt.clone())));
        receipts.push((id, NO_RECEIPT.to_owned()));
    }
    for (id, receipt) in receipts {
        let operation = Operation::Settle {
            receipt,
            id,
            action: ReceiptAction::DeadLetter,
            answer: None,
        };
        record.push(Call {
            operation,
            ended: None,
            clock_to: Millis::MAX,
            ..first.clone()
        });
    }
    record
}

fn stored(id: &str, answered: bool) -> Operation {
    Operation::Enqueue {
        id: id.to_owned(),
        delay: 0,
        answered,
    }
}

fn removed(id: String, receipt: String) -> Operation {
    Operation::Settle {
        receipt,
        id,
        action: ReceiptAction::Ack,
        answer: None,
    }
}

/// The messages by their names in the record. A redriven message has another one: its attempts begin
/// anew.
struct Names {
    /// When each copy was sent.
    sent: BTreeMap<String, Moment>,
    may_be_dead: BTreeSet<String>,
    /// Those of few attempts.
    mortal: BTreeSet<String>,
    redriven: BTreeMap<String, String>,
    of_receipts: BTreeMap<String, String>,
}

impl Names {
    fn of(events: &[Event]) -> Self {
        let mut names = Self {
            sent: BTreeMap::new(),
            may_be_dead: BTreeSet::new(),
            mortal: BTreeSet::new(),
            redriven: BTreeMap::new(),
            of_receipts: BTreeMap::new(),
        };
        let redrives = events
            .iter()
            .filter(|it| matches!(it.what, What::Redrive { .. }));
        let first_redrive = redrives.map(|it| it.began).min();
        let mut delivered = BTreeSet::new();
        for event in events {
            match &event.what {
                What::Enqueue { copies, .. } => {
                    let sent = copies.iter().map(|it| (it.payload.clone(), event.began));
                    names.sent.extend(sent);
                    let mortal = copies.iter().filter(|copy| copy.max_attempts < 10);
                    let mortal = mortal.map(|Copy { payload, .. }| payload.clone());
                    names.mortal.extend(mortal);
                    names.may_be_dead.extend(names.mortal.iter().cloned());
                }
                What::Settle { uses, .. } => {
                    let dead = uses.iter().filter(|it| it.1 == ReceiptAction::DeadLetter);
                    let dead = dead.map(|(leased, _)| leased.payload.clone());
                    names.may_be_dead.extend(dead);
                }
                What::Lease { answer, .. } => {
                    let is_redrive = first_redrive.is_some_and(|it| it < event.returned);
                    for Leased {
                        payload,
                        receipt,
                        attempt,
                        ..
                    } in answer.iter().flatten()
                    {
                        let is_again = !delivered.insert(payload) && *attempt == 1;
                        if is_again && is_redrive && names.may_be_dead.contains(payload) {
                            let name = format!("{payload}, redriven");
                            names.redriven.insert(payload.clone(), name);
                        }
                        let id = names.last_of(payload);
                        names.of_receipts.insert(receipt.clone(), id);
                    }
                }
                What::Purge { .. } | What::Redrive { .. } | What::Delete { .. } => {}
            }
        }
        names
    }

    fn of_receipt(&self, leased: &Leased) -> String {
        let name = self.of_receipts.get(&leased.receipt);
        name.unwrap_or(&leased.payload).clone()
    }

    fn last_of(&self, payload: &str) -> String {
        let name = self.redriven.get(payload).map(String::as_str);
        name.unwrap_or(payload).to_owned()
    }

    /// The messages that were sent before `event` ended, each with its receipts and with none.
    fn receipts_before(&self, event: &Event, is_dead: bool) -> Vec<(String, String)> {
        let is_before = |payload: &str| {
            let sent = self.sent.get(payload).copied();
            let is_before = sent.is_some_and(|sent| sent < event.returned || !event.is_answered());
            is_before && (!is_dead || self.may_be_dead.contains(payload))
        };
        let ids = |payload: &String| {
            let redriven = self.redriven.get(payload).cloned();
            [Some(payload.clone()), redriven].into_iter().flatten()
        };
        let payloads = self.sent.keys().filter(|it| is_before(it));
        let ids: BTreeSet<String> = payloads.flat_map(ids).collect();
        let receipts = self
            .of_receipts
            .iter()
            .map(|(receipt, id)| (id.clone(), receipt.clone()));
        let receipts = receipts.filter(|(id, _)| ids.contains(id));
        let none = ids.iter().map(|id| (id.clone(), NO_RECEIPT.to_owned()));
        receipts.chain(none).collect()
    }
}
