//! What a write did, judged by the server's answer and by what a find shows afterwards. Pure: no
//! database. `tests/protocol_model` runs these functions.

use mongodb::bson::Uuid;

use crate::document::entry::{Entry, Part};

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Written {
    /// It was carried out, and a majority has it.
    Yes,
    /// Another call wrote first.
    No,
    /// It was not carried out when the call read the entry, but may still be.
    NotYet,
    /// It may have been carried out, or may still be.
    Unknown,
}

/// Evidence, in an entry that was rewritten, that an earlier write took effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trace {
    /// A claim: if its nonce is there, it was. Otherwise the lease may have come and gone.
    Claim(Uuid),
    /// Uses that end a lease, by number and nonce: if a receipt is still good, it was not.
    Ended(Vec<(usize, Uuid)>),
}

impl Trace {
    /// `None` if it does not tell.
    fn is_made(&self, entry: &Entry) -> Option<bool> {
        match self {
            Self::Claim(nonce) => {
                let is_there = entry.parts.iter().any(|part| part.lease() == Some(*nonce));
                is_there.then_some(true)
            }
            Self::Ended(uses) => {
                let is_good = |(number, nonce): &(usize, Uuid)| {
                    entry.part(*number).and_then(Part::lease) == Some(*nonce)
                };
                uses.iter().any(is_good).then_some(false)
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

/// The outcomes of updates, by how many of them the server matched.
pub(crate) fn of_answered_updates(matched: u64, made: &[Option<bool>]) -> Vec<Written> {
    // The count includes updates that the entries do not prove.
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

/// The outcomes of updates without an answer. `is_certain`: a majority has all that show that they were
/// made.
pub(crate) fn of_unanswered_updates(made: &[Option<bool>], is_certain: bool) -> Vec<Written> {
    let did = |made: &Option<bool>| match made {
        Some(true) if is_certain => Written::Yes,
        Some(false) => Written::NotYet,
        _ => Written::Unknown,
    };
    made.iter().map(did).collect()
}

/// The outcomes of deletes, by how many of them the server matched. `are_left`: whether each entry was
/// found afterwards.
pub(crate) fn of_answered_deletes(matched: u64, are_left: &[bool]) -> Vec<Written> {
    let gone = are_left.iter().filter(|is_left| !**is_left);
    // If other calls deleted some, it is unknown which.
    let of_gone = match matched {
        all if all == gone.count() as u64 => Written::Yes,
        0 => Written::No,
        _ => Written::Unknown,
    };
    let did = |is_left: &bool| match is_left {
        true => Written::No,
        false => of_gone,
    };
    are_left.iter().map(did).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::entry::Fate;

    const SEEN: i64 = 10;
    const ADDED: i64 = 5;

    fn leased(nonces: &[Option<Uuid>]) -> Entry {
        let part = |(number, lease): (usize, &Option<Uuid>)| Part {
            numbers: vec![number],
            attempts: 1,
            fate: Fate::Live {
                at: 0,
                lease: *lease,
            },
        };
        Entry {
            parts: nonces.iter().enumerate().map(part).collect(),
            max_attempts: 25,
            count: 0,
        }
    }

    /// Two extensions, of which the server matched one. Other calls have written both entries since: the
    /// first one with the extension in it, the second one instead of it.
    #[test]
    fn an_extension_that_was_made_does_not_stand_for_another_one() {
        let (mine, other) = (Uuid::new(), Uuid::new());
        let trace = Trace::Ended(Vec::new());
        let entries = [leased(&[Some(other), Some(mine)]), leased(&[Some(other)])];
        let made: Vec<_> = entries
            .iter()
            .map(|entry| is_update_made(SEEN, ADDED, &trace, Some((99, entry))))
            .collect();
        assert_eq!(of_answered_updates(1, &made), [Written::Unknown; 2]);
        assert_eq!(of_answered_updates(2, &made), [Written::Yes; 2]);
        assert_eq!(of_answered_updates(0, &made), [Written::No; 2]);
    }

    /// The same with claims: the first lease has expired and is another's, the second entry was gone.
    #[test]
    fn a_claim_that_has_expired_does_not_stand_for_one_of_what_is_gone() {
        let trace = Trace::Claim(Uuid::new());
        let taken_again = leased(&[Some(Uuid::new())]);
        let made = [
            is_update_made(SEEN, ADDED, &trace, Some((99, &taken_again))),
            is_update_made(SEEN, ADDED, &trace, None),
        ];
        assert_eq!(of_answered_updates(1, &made), [Written::Unknown; 2]);
    }

    #[test]
    fn a_write_shows_by_its_revision_nonce_or_receipts() {
        let nonce = Uuid::new();
        let entry = leased(&[Some(nonce)]);
        let made = |rev, trace: &Trace| is_update_made(SEEN, ADDED, trace, Some((rev, &entry)));
        let ended = Trace::Ended(vec![(0, nonce)]);
        assert_eq!(made(SEEN + ADDED, &ended), Some(true));
        assert_eq!(made(SEEN, &Trace::Claim(nonce)), Some(false));
        assert_eq!(made(99, &Trace::Claim(nonce)), Some(true));
        assert_eq!(made(99, &ended), Some(false));
        assert_eq!(made(99, &Trace::Ended(vec![(0, Uuid::new())])), None);
    }
}
