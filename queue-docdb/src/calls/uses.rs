//! Uses of receipts, and what they make of an entry. Pure: no clock, no database.
//! `tests/protocol_model` runs these functions.

use std::collections::HashSet;

use queue_api::LeaseOutcome;

use crate::{
    document::{
        entry::{Action, Entry},
        receipt::ParsedReceipt,
    },
    store::written::Trace,
};

/// One use of a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Use {
    /// Where in the call it stands.
    pub(crate) index: usize,
    pub(crate) receipt: ParsedReceipt,
    pub(crate) action: Action,
}

/// The outcomes of the uses of one entry.
pub(crate) type Outcomes = Vec<(usize, LeaseOutcome)>;

/// What the uses make of the entry, and their outcomes.
pub(crate) fn decide(entry: &Entry, uses: &[Use]) -> (Entry, Outcomes) {
    let mut after = entry.clone();
    let outcomes = uses.iter().map(|each| {
        let is_good = after.settle(each.receipt.number, each.receipt.nonce, &each.action);
        let outcome = match is_good {
            true => LeaseOutcome::Applied,
            false => LeaseOutcome::Lost,
        };
        (each.index, outcome)
    });
    let outcomes = outcomes.collect();
    (after, outcomes)
}

/// An extension leaves its receipt good, so it leaves no trace.
pub(crate) fn trace(uses: &[Use]) -> Trace {
    let ends = |each: &&Use| !matches!(each.action, Action::Extend { .. });
    let ended = uses.iter().filter(ends);
    Trace::Ended(
        ended
            .map(|each| (each.receipt.number, each.receipt.nonce))
            .collect(),
    )
}

/// Whether the first use of a receipt was lost. A later one may be, because of the first.
pub(crate) fn has_lost(uses: &[Use], outcomes: &Outcomes) -> bool {
    let mut seen = HashSet::new();
    let mut each = uses.iter().zip(outcomes);
    each.any(|(each, (_, outcome))| seen.insert(each.receipt) && *outcome == LeaseOutcome::Lost)
}
