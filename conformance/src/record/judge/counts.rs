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
                Some((&counted[..], place.enqueues_during(call)))
            })
            .collect();
        let is_alone = is_alone(calls, call);
        let why = wrong_count(managed, &by_place, is_alone)?;
        Some(Violation::new(calls, &format!("{queue}/"), why, &[call]))
    });
    judged.collect()
}

/// Why the count of a call cannot be right. `by_place` says for each message id how the call may have
/// counted it, and how many messages of this id may have been stored meanwhile.
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
