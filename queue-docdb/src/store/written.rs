//! What a write did, judged by the server's answer and by what a find shows afterwards. Pure: no
//! database. `tests/protocol_model` runs these functions.

use mongodb::bson::Uuid;

use crate::document::entry::{Entry, Part};

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Written {
    /// It was carried out, and a majority has it.
    Yes,
    /// Somebody else wrote first.
    No,
    /// It was not carried out when the call looked, but may still be.
    NotYet,
    /// It may have been carried out, or may still be.
    Unknown,
}

/// What tells from an entry that was written again whether a write was carried out before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trace {
    /// A claim: its nonce is there.
    Claim(Uuid),
    /// Uses of receipts, by number and nonce: if all are still good, it was not. An extension leaves
    /// its receipt good, and may be made twice.
    Uses(Vec<(usize, Uuid)>),
}

impl Trace {
    /// `None` if it does not tell.
    fn is_made(&self, entry: &Entry) -> Option<bool> {
        match self {
            Self::Claim(nonce) => Some(entry.parts.iter().any(|part| part.lease() == Some(*nonce))),
            Self::Uses(uses) => {
                let is_good = |(number, nonce): &(usize, Uuid)| {
                    entry.part(*number).and_then(Part::lease) == Some(*nonce)
                };
                uses.iter().all(is_good).then_some(false)
            }
        }
    }
}

/// Whether an update of the revision `seen` was made, as the entry that was found shows with its
/// revision. `None` if that does not tell.
pub(crate) fn is_update_made(
    seen: i64,
    added: i64,
    trace: &Trace,
    found: Option<(i64, &Entry)>,
) -> Option<bool> {
    match found {
        Some((rev, _)) if rev == seen + added => Some(true),
        Some((rev, _)) if rev == seen => Some(false),
        Some((_, entry)) => trace.is_made(entry),
        None => None,
    }
}

/// What updates did, of which the server matched so many.
pub(crate) fn of_answered_updates(matched: u64, made: &[Option<bool>]) -> Vec<Written> {
    // The answer counts those of which the entries do not tell.
    let count = |which| made.iter().filter(|made| **made == which).count() as u64;
    let of_others = match matched.saturating_sub(count(Some(true))) {
        0 => Written::No,
        hidden if hidden == count(None) => Written::Yes,
        _ => Written::Unknown,
    };
    let did = |made: &Option<bool>| match made {
        Some(true) => Written::Yes,
        Some(false) => Written::No,
        None => of_others,
    };
    made.iter().map(did).collect()
}

/// What updates did whose answer was lost. `is_certain`: a majority has all that show that they were
/// made.
pub(crate) fn of_unanswered_updates(made: &[Option<bool>], is_certain: bool) -> Vec<Written> {
    let did = |made: &Option<bool>| match made {
        Some(true) if is_certain => Written::Yes,
        Some(false) => Written::NotYet,
        _ => Written::Unknown,
    };
    made.iter().map(did).collect()
}

/// What deletes did, of which the server matched so many. `are_left`: whether each entry was found
/// afterwards.
pub(crate) fn of_answered_deletes(matched: u64, are_left: &[bool]) -> Vec<Written> {
    let gone = are_left.iter().filter(|is_left| !**is_left);
    // Only if others have deleted some of them it is not clear which.
    let of_gone = match gone.count() as u64 == matched {
        true => Written::Yes,
        false => Written::Unknown,
    };
    let did = |is_left: &bool| match is_left {
        true => Written::No,
        false => of_gone,
    };
    are_left.iter().map(did).collect()
}

/// What so many deletes did whose answer was lost. Of what is gone, nothing tells who deleted it.
pub(crate) fn of_unanswered_deletes(sent: usize) -> Vec<Written> {
    vec![Written::Unknown; sent]
}
