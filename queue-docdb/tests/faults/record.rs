//! The log of a case as a record for the judge of recorded histories.

use std::collections::BTreeMap;

use queue_api::{DeadReason, EnqueueOutcome, LeaseOutcome, Purge};
use queue_conformance::record::{
    Call, ManageCall, Millis, Operation, RecordedDelivery, RecordedMessage, RecordedStats,
};

use crate::{
    calls::{self, Seen},
    log::{Event, Leased, VISIBILITY, What},
    look::{Dead, Live},
};

/// The record of these calls. Counts are judged elsewhere, too, from what is left.
pub(crate) fn record(events: &[Event]) -> Vec<Call> {
    events.iter().flat_map(calls).collect()
}

/// The record of a case of `call` with so many faults, with claims that may be late.
///
/// A transaction that is left open holds messages. A claim that waits for it may be carried out after its
/// lease call has returned with others. With two faults, so may a claim whose fence met the second one.
pub(crate) fn record_case(events: &[Event], call: calls::Call, faults: usize) -> Vec<Call> {
    let mut all = record(events);
    if call == calls::Call::Transaction {
        all.extend(late_claims(&all));
    } else if faults > 1 {
        let has_messages = |call: &&Call| {
            let Operation::Lease { answer, .. } = &call.operation else {
                return false;
            };
            answer.as_ref().is_some_and(|leased| !leased.is_empty())
        };
        let own = all.iter().filter(|call| call.by == SUBJECT);
        let own = own.filter(has_messages);
        let own: Vec<Call> = own.cloned().collect();
        all.extend(late_claims(&own));
    }
    all
}

fn late_claims(calls: &[Call]) -> Vec<Call> {
    let late_claim = |call: &Call| {
        let Operation::Lease {
            visibility,
            answer: Some(_),
        } = call.operation
        else {
            return None;
        };
        Some(Call {
            by: format!("{}, late", call.by),
            ended: None,
            clock_to: Millis::MAX,
            operation: Operation::Lease {
                visibility,
                answer: None,
            },
            ..call.clone()
        })
    };
    calls.iter().filter_map(late_claim).collect()
}

fn calls(event: &Event) -> Vec<Call> {
    let is_answered = event.is_answered();
    let call = |(part, operation): (usize, Operation)| Call {
        by: event.by.to_owned(),
        number: event.number,
        part,
        began: event.began,
        ended: is_answered.then_some(event.returned),
        clock_from: event.clock_from,
        clock_to: match is_answered {
            true => event.clock_to,
            false => Millis::MAX,
        },
        operation,
    };
    operations(event)
        .into_iter()
        .enumerate()
        .map(call)
        .collect()
}

fn operations(event: &Event) -> Vec<Operation> {
    match &event.what {
        What::Enqueue { copies, answer } => {
            let outcome = |part: usize| answer.as_ref().map(|answer| answer[part]);
            let store = |(part, copy): (usize, &crate::log::Copy)| Operation::Store {
                id: name(&copy.payload),
                delay: 0,
                max_attempts: copy.max_attempts,
                answer: outcome(part).map(|outcome| outcome == EnqueueOutcome::Stored),
            };
            copies.iter().enumerate().map(store).collect()
        }
        What::Lease { answer, .. } => {
            let delivery = |leased: &Leased| RecordedDelivery {
                id: name(&leased.payload),
                receipt: leased.receipt.clone(),
                attempt: leased.attempt,
                expires: leased.expires,
            };
            let all = answer.as_ref();
            vec![Operation::Lease {
                visibility: VISIBILITY.as_millis() as Millis,
                answer: all.map(|all| all.iter().map(delivery).collect()),
            }]
        }
        What::Settle { uses, answer } => {
            let outcome = |part: usize| answer.as_ref().map(|answer| answer[part]);
            let settle = |(part, (leased, action)): (usize, &(Leased, _))| Operation::Settle {
                receipt: leased.receipt.clone(),
                id: name(&leased.payload),
                action: *action,
                answer: outcome(part).map(|outcome| outcome == LeaseOutcome::Applied),
            };
            uses.iter().enumerate().map(settle).collect()
        }
        What::Purge {
            what: Purge::Live,
            answer,
        } => vec![manage(ManageCall::PurgeLive(*answer))],
        What::Purge {
            what: Purge::Dead,
            answer,
        } => vec![manage(ManageCall::PurgeDead(*answer))],
        What::Redrive { answer } => vec![manage(ManageCall::Redrive {
            ids: None,
            answer: *answer,
        })],
        What::Delete { is_answered } => {
            let answered = *is_answered;
            vec![manage(ManageCall::Delete { answered })]
        }
        What::Read(answer) => answer.iter().filter_map(read).map(manage).collect(),
    }
}

fn read(seen: &Seen) -> Option<ManageCall> {
    let message = |payload: &str, attempts, exhausted| RecordedMessage {
        id: name(payload),
        attempts,
        exhausted,
    };
    let live = |seen: &BTreeMap<String, Live>| {
        let seen = seen
            .iter()
            .map(|(payload, it)| message(payload, it.attempts, false));
        Some(seen.collect())
    };
    Some(match seen {
        Seen::Nothing => return None,
        Seen::Peeked(seen) => ManageCall::Peek(live(seen)),
        Seen::Listed(seen) => ManageCall::Messages(live(seen)),
        Seen::Dead(dead) => {
            let letter = |(payload, dead): (&String, &Dead)| {
                let is_exhausted = dead.reason == DeadReason::AttemptsExhausted;
                message(payload, dead.attempts, is_exhausted)
            };
            ManageCall::DeadLetters(Some(dead.iter().map(letter).collect()))
        }
        Seen::Stats(stats) => ManageCall::Stats(Some(RecordedStats {
            ready: stats.ready,
            delayed: stats.delayed,
            leased: stats.leased,
            dead: stats.dead,
        })),
        Seen::IsListed(is_listed) => ManageCall::List(Some(*is_listed)),
    })
}

/// The party whose call meets the faults.
pub(crate) const SUBJECT: &str = "subject";

const QUEUE: &str = "q";

fn manage(call: ManageCall) -> Operation {
    Operation::Manage {
        queue: QUEUE.to_owned(),
        call,
    }
}

/// The payload is the id and the number of the copy, as in a record.
fn name(payload: &str) -> String {
    format!("{QUEUE}/{payload}")
}
