//! What an instance of the backend knows about a queue's collection, and for how long.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::lock::lock;

/// How long an instance does not look again at what it has found.
const TRUST: Duration = Duration::from_secs(60);

/// What an instance knows about a queue's collection.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    known: Mutex<Known>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Until when it is known to be a queue of this version, with these indexes.
    until: Option<Instant>,
    indexes: Indexes,
    is_keyed: bool,
}

/// What is known about the indexes of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Indexes {
    #[default]
    Unknown,
    /// The server lists all. It may still build one, or a failover may undo it.
    Listed,
    /// All but the unique one: an id is stored twice, or the build is still running.
    NotUnique,
    /// No id is stored twice.
    Ready,
}

impl Knowledge {
    /// The queue's indexes. `None` if the collection is not known to be a queue of this version.
    pub(crate) fn indexes(&self) -> Option<Indexes> {
        let known = lock(&self.known);
        let is_current = known.until.is_some_and(|until| Instant::now() < until);
        is_current.then_some(known.indexes)
    }

    /// Whether messages are found by `_id`. It stays known: a queue does not change it, and a call
    /// that is under way relies on it.
    pub(crate) fn is_keyed(&self) -> bool {
        lock(&self.known).is_keyed
    }

    /// Learns how messages are found, and nothing else, so that the next call looks again.
    pub(crate) fn learn_keyed(&self, is_keyed: bool) {
        *lock(&self.known) = Known {
            is_keyed,
            ..Known::default()
        };
    }

    /// Learns that the collection is a queue, and how its messages are found.
    pub(crate) fn learn_queue(&self, is_keyed: bool) {
        *lock(&self.known) = Known {
            until: Some(Instant::now() + TRUST),
            is_keyed,
            indexes: Indexes::Unknown,
        };
    }

    /// Learns the indexes of what is known to be a queue.
    pub(crate) fn learn_indexes(&self, indexes: Indexes) {
        lock(&self.known).indexes = indexes;
    }

    /// Forgets what another call may have changed, so that the next call looks again.
    pub(crate) fn forget(&self) {
        lock(&self.known).until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_under_way_still_knows_how_messages_are_found() {
        let knowledge = Knowledge::default();
        knowledge.learn_queue(true);
        knowledge.learn_indexes(Indexes::Ready);
        knowledge.forget();
        assert_eq!(knowledge.indexes(), None);
        assert!(knowledge.is_keyed());
    }
}
