//! The judge of recorded histories.
//!
//! Calls overlap, so for most pairs of them the order is unknown. A call that began after another
//! had ended came later; all other orders are possible. For each message id, the judge looks for an
//! order in which the contract allows every answer. A record for which there is none is wrong,
//! whatever happened.

mod counts;
mod place;
mod search;
mod step;

use std::collections::BTreeMap;

use super::{
    event::{Call, Operation},
    violation::Violation,
};
use place::Place;

/// Returns a violation for each message id for which the contract was broken, and for each count
/// that cannot be right.
///
/// The record must be complete: every message that was stored and can still be delivered is leased
/// and acked before the record ends. If an id is stored again after an ack, that is another message
/// and needs another name in the record, see [`message_name`](super::message_name).
pub fn judge(calls: &[Call]) -> Vec<Violation> {
    let places = places(calls);
    let mut violations = Vec::new();
    for place in places.values() {
        if let Err(breach) = place.judge() {
            violations.push(Violation::new(
                calls,
                &place.name,
                breach.why,
                &breach.broken_by,
            ));
        }
    }
    // Without an order for each message, there are no bounds for a count.
    if violations.is_empty() {
        violations.extend(counts::judge(calls, &places));
    }
    violations
}

/// The calls by the message ids that they are about.
fn places(calls: &[Call]) -> BTreeMap<&str, Place<'_>> {
    let mut places = BTreeMap::new();
    for call in calls {
        for name in names(&call.operation) {
            let name = super::event::place(name);
            places
                .entry(name)
                .or_insert_with(|| Place::new(name, calls));
        }
    }
    places
}

/// The messages that a call is about for certain.
fn names(operation: &Operation) -> Vec<&str> {
    match operation {
        Operation::Enqueue { id, .. }
        | Operation::Store { id, .. }
        | Operation::Settle { id, .. } => vec![id],
        Operation::Lease { answer, .. } => answer.iter().flatten().map(|d| &*d.id).collect(),
        Operation::Manage { call, .. } => call.seen().iter().map(|m| &*m.id).collect(),
    }
}

/// Why the contract was broken, and the calls that show it.
struct Breach<'a> {
    why: String,
    broken_by: Vec<&'a Call>,
}

fn breach<'a, T>(
    why: impl Into<String>,
    broken_by: impl IntoIterator<Item = &'a Call>,
) -> Result<T, Breach<'a>> {
    Err(Breach {
        why: why.into(),
        broken_by: broken_by.into_iter().collect(),
    })
}
