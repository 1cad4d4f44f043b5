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
    has_indexes: bool,
}

impl Knowledge {
    /// Whether the collection is a queue of this version.
    pub(crate) fn is_queue(&self) -> bool {
        self.current().is_some()
    }

    /// Whether it also has the indexes.
    pub(crate) fn is_ready(&self) -> bool {
        self.current().is_some_and(|known| known.has_indexes)
    }

    pub(crate) fn learn(&self, has_indexes: bool) {
        let until = Instant::now() + TRUST;
        *self.lock() = Some(Known { until, has_indexes });
    }

    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    fn current(&self) -> Option<Known> {
        self.lock().filter(|known| Instant::now() < known.until)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
