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
    let judged = calls.iter().filter_map(|call| {
        let Operation::Manage {
            queue,
            call: managed,
        } = &call.operation
        else {
            return None;
        };
        let why = wrong_count(calls, call, managed, places)?;
        Some(Violation::new(calls, &format!("{queue}/"), why, &[call]))
    });
    judged.collect()
}

/// Why the count of a call cannot be right.
fn wrong_count(
    calls: &[Call],
    call: &Call,
    managed: &ManageCall,
    places: &BTreeMap<&str, Place<'_>>,
) -> Option<String> {
    let bounds = |counted, again: bool| {
        let (mut least, mut most) = (0, 0);
        for place in places.values() {
            let Some(is_possible) = place.may_count(call, counted) else {
                continue;
            };
            if !is_possible {
                continue;
            }
            most += 1 + if again {
                place.enqueues_during(call)
            } else {
                0
            };
            let others = ALL.iter().filter(|other| **other != counted);
            let is_certain = !others
                .into_iter()
                .any(|other| place.may_count(call, *other) == Some(true));
            least += u64::from(is_certain);
        }
        least..=most
    };
    match managed {
        ManageCall::PurgeLive(Some(count))
        | ManageCall::PurgeDead(Some(count))
        | ManageCall::Redrive {
            answer: Some(count),
            ..
        } => {
            let bounds = bounds(Counted::Changed, true);
            let why = format!("M1: the count is {count}, but it must be {bounds:?}");
            (!bounds.contains(count)).then_some(why)
        }
        ManageCall::Stats(Some(stats)) if is_alone(calls, call) => {
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
                let bounds = bounds(counted, false);
                let why = format!("S1: {counted:?} is {count}, but it must be {bounds:?}");
                (!bounds.contains(count)).then_some(why)
            })
        }
        _ => None,
    }
}

const ALL: [Counted; 6] = [
    Counted::Nothing,
    Counted::Changed,
    Counted::Ready,
    Counted::Delayed,
    Counted::Leased,
    Counted::Dead,
];

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
