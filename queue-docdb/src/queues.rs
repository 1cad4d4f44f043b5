//! What an instance of the backend remembers about queues: nothing that it could not find out
//! again.

use std::{
    collections::HashMap,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use queue_api::QueueName;
use tokio::sync::{Mutex, Notify};

use crate::{
    apart::Apart,
    head::Head,
    lanes::{Rivals, Turns},
    schema::SchemaMemory,
    unsettled::UnsettledClaims,
    wait::Idle,
};

/// What an instance of the backend remembers about each queue.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// A std mutex: it is held for a look-up only, never across an await.
    states: std::sync::Mutex<HashMap<QueueName, Arc<QueueState>>>,
}

impl Queues {
    pub(crate) fn state(&self, queue: &QueueName) -> Arc<QueueState> {
        let mut states = self.states();
        match states.get(queue) {
            Some(state) => Arc::clone(state),
            None => Arc::clone(states.entry(queue.clone()).or_default()),
        }
    }

    /// Tells those who wait for this queue, if anybody here has used it.
    pub(crate) fn wake(&self, queue: &QueueName) {
        if let Some(state) = self.states().get(queue) {
            state.changed.notify_waiters();
        }
    }

    /// Tells everybody who waits.
    pub(crate) fn wake_all(&self) {
        for state in self.states().values() {
            state.changed.notify_waiters();
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<QueueName, Arc<QueueState>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an instance of the backend remembers about a queue.
#[derive(Debug, Default)]
pub(crate) struct QueueState {
    pub(crate) indexes: IndexMemory,
    pub(crate) schema: SchemaMemory,
    pub(crate) turns: Turns,
    pub(crate) rivals: Rivals,
    pub(crate) head: Head,
    pub(crate) apart: Apart,
    /// Told whenever something happened that may make a message ready sooner: in this instance,
    /// or elsewhere where a change stream tells.
    pub(crate) changed: Notify,
    pub(crate) idle: Idle,
    /// Claims of which it is not known whether they took anything.
    pub(crate) unsettled: UnsettledClaims,
}

/// Whether this instance has seen to it that the indexes exist.
#[derive(Debug, Default)]
pub(crate) struct IndexMemory {
    made: AtomicBool,
    /// Held while they are built, because DocumentDB builds one at a time. Tokio's mutex, as
    /// the build awaits.
    pub(crate) building: Mutex<()>,
}

impl IndexMemory {
    pub(crate) fn is_made(&self) -> bool {
        self.made.load(Ordering::Acquire)
    }

    pub(crate) fn remember(&self) {
        self.made.store(true, Ordering::Release);
    }

    pub(crate) fn forget(&self) {
        self.made.store(false, Ordering::Release);
    }
}
