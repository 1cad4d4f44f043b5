//! What an instance of the backend knows about a queue's collection, and for how long.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long an instance does not look again at what it has found.
const TRUST: Duration = Duration::from_secs(60);

/// What an instance knows about a queue's collection.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    /// A std mutex: it is held for a copy, never across an await.
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    until: Instant,
    is_keyed: bool,
    indexes: Indexes,
}

/// What is known about the indexes of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Indexes {
    #[default]
    Unknown,
    /// The server lists all. It may still build one, or a failover may undo it.
    Listed,
    /// No id is stored twice.
    Ready,
}

impl Knowledge {
    /// Whether the collection is a queue of this version.
    pub(crate) fn is_queue(&self) -> bool {
        self.current().is_some()
    }

    pub(crate) fn indexes(&self) -> Indexes {
        self.current()
            .map_or(Indexes::Unknown, |known| known.indexes)
    }

    /// Whether it also has the indexes, for writes.
    pub(crate) fn is_ready(&self) -> bool {
        self.indexes() == Indexes::Ready
    }

    /// Whether messages are found by `_id`. It stays known: a queue does not change it, and a call
    /// that is under way relies on it.
    pub(crate) fn is_keyed(&self) -> bool {
        self.lock().is_some_and(|known| known.is_keyed)
    }

    /// Learns that the collection is a queue, and how its messages are found.
    pub(crate) fn learn_queue(&self, is_keyed: bool) {
        *self.lock() = Some(Known {
            until: Instant::now() + TRUST,
            is_keyed,
            indexes: Indexes::Unknown,
        });
    }

    /// Knows only how messages are found, so that the next call looks again.
    pub(crate) fn forget_but(&self, is_keyed: bool) {
        *self.lock() = Some(Known {
            until: Instant::now(),
            is_keyed,
            indexes: Indexes::Unknown,
        });
    }

    /// Learns that the queue also has the indexes.
    pub(crate) fn learn_indexes(&self, indexes: Indexes) {
        if let Some(known) = &mut *self.lock() {
            known.until = Instant::now() + TRUST;
            known.indexes = indexes;
        }
    }

    /// Forgets what another call may have changed, so that the next call looks again.
    pub(crate) fn forget(&self) {
        if let Some(known) = &mut *self.lock() {
            known.until = Instant::now();
            known.indexes = Indexes::Unknown;
        }
    }

    fn current(&self) -> Option<Known> {
        self.lock().filter(|known| Instant::now() < known.until)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(!knowledge.is_queue() && !knowledge.is_ready());
        assert!(knowledge.is_keyed());
    }
}
