//! Counts: how many messages a call removed, redrove or saw.
//!
//! For each message id, the judge finds out how the call may have counted it. That gives bounds for
//! the count of all.

use std::collections::BTreeMap;

use super::{Place, step::Counted};
use crate::record::{
    event::{Call, ManageCall, Moment, Operation, RecordedStats},
    violation::Violation,
};

pub(super) fn judge(calls: &[Call], places: &BTreeMap<&str, Place<'_>>) -> Vec<Violation> {
    let counted: Vec<_> = places
        .values()
        .map(|place| (place, place.counted()))
        .collect();
    let judged = calls.iter().filter_map(|call| {
        let Operation::Manage {
            queue,
            call: managed,
        } = &call.operation
        else {
            return None;
        };
        let by_place: Vec<_> = counted
            .iter()
            .filter_map(|(place, counted)| {
                let (_, counted) = counted.iter().find(|(by, _)| std::ptr::eq(*by, call))?;
                Some((&counted[..], place.times_again(call)))
            })
            .collect();
        let is_alone = is_alone(calls, call);
        let why = wrong_count(managed, &by_place, is_alone)?;
        Some(Violation::new(calls, &format!("{queue}/"), why, &[call]))
    });
    judged.collect()
}

/// Why the count of a call cannot be right. `by_place` says for each message id how the call may have
/// counted it, and how often it may have met the id again.
fn wrong_count(
    managed: &ManageCall,
    by_place: &[(&[Counted], u64)],
    is_alone: bool,
) -> Option<String> {
    let bounds = |what| {
        let is_possible = by_place
            .iter()
            .filter(|(counted, _)| counted.contains(&what));
        let is_certain = by_place.iter().filter(|(counted, _)| *counted == [what]);
        let again = |(_, again): &(_, u64)| {
            if what == Counted::Changed {
                1 + again
            } else {
                1
            }
        };
        is_certain.count() as u64..=is_possible.map(again).sum()
    };
    match managed {
        ManageCall::PurgeLive(Some(count))
        | ManageCall::PurgeDead(Some(count))
        | ManageCall::Redrive {
            answer: Some(count),
            ..
        } => {
            let bounds = bounds(Counted::Changed);
            let why = format!("M1: the count is {count}, but it must be {bounds:?}");
            (!bounds.contains(count)).then_some(why)
        }
        ManageCall::Stats(Some(stats)) if is_alone => {
            let RecordedStats {
                ready,
                delayed,
                leased,
                dead,
            } = stats;
            let counts = [
                (Counted::Ready, ready),
                (Counted::Delayed, delayed),
                (Counted::Leased, leased),
                (Counted::Dead, dead),
            ];
            counts.into_iter().find_map(|(counted, count)| {
                let bounds = bounds(counted);
                let why = format!("S1: {counted:?} is {count}, but it must be {bounds:?}");
                (!bounds.contains(count)).then_some(why)
            })
        }
        _ => None,
    }
}

/// Whether no answered call overlaps this one. What a call without an answer may have done is in
/// the bounds.
fn is_alone(calls: &[Call], call: &Call) -> bool {
    let ended = call.ended.unwrap_or(Moment::MAX);
    let overlaps = |other: &&Call| {
        let is_same = other.by == call.by && other.number == call.number;
        let other_ended = other.ended.unwrap_or(0);
        !is_same && other.began < ended && other_ended > call.began
    };
    !calls.iter().any(|other| overlaps(&other))
}

#[cfg(test)]
mod tests {
    use super::{super::judge, *};
    use crate::record::event::{ReceiptAction, RecordedDelivery};

    const ID: &str = "q/m#0";

    /// A call from one moment to another, which are times by the backend's clock, too.
    fn call(began: u64, ended: u64, operation: Operation) -> Call {
        Call {
            by: "a task".to_owned(),
            number: began,
            part: 0,
            began,
            ended: Some(ended),
            clock_from: began,
            clock_to: ended,
            operation,
        }
    }

    fn lease(began: u64, ended: u64) -> Call {
        let delivery = RecordedDelivery {
            id: ID.to_owned(),
            receipt: began.to_string(),
            attempt: 1,
            expires: began + 5,
        };
        let (visibility, answer) = (5, Some(vec![delivery]));
        let mut lease = call(began, ended, Operation::Lease { visibility, answer });
        lease.clock_to = began;
        lease
    }

    /// A message of one attempt is leased and redriven, and leased again at each of these moments.
    fn redriven(answer: u64, redrive: [u64; 2], again: &[u64]) -> Vec<String> {
        let stored = Operation::Store {
            id: ID.to_owned(),
            delay: 0,
            max_attempts: 1,
            answer: Some(true),
        };
        let mut calls = vec![call(0, 1, stored), lease(2, 3)];
        let answer = Some(answer);
        calls.push(call(
            redrive[0],
            redrive[1],
            Operation::Manage {
                queue: "q".to_owned(),
                call: ManageCall::Redrive { ids: None, answer },
            },
        ));
        calls.extend(again.iter().map(|&at| lease(at, at + 1)));
        let acked = Operation::Settle {
            receipt: again.last().expect("a lease").to_string(),
            id: ID.to_owned(),
            action: ReceiptAction::Ack,
            answer: Some(true),
        };
        calls.push(call(60, 61, acked));
        judge(&calls).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_redrive_counts_a_message_again_that_dies_again_meanwhile() {
        assert_eq!(redriven(1, [10, 20], &[30]), [""; 0]);
        assert!(!redriven(2, [10, 20], &[30]).is_empty());
        assert_eq!(redriven(2, [10, 50], &[20, 40]), [""; 0]);
        assert!(!redriven(4, [10, 50], &[20, 40]).is_empty());
    }
}
