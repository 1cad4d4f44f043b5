//! What an instance of the backend remembers about queues. It could find all of it out again.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use queue_api::QueueName;
use tokio::sync::Mutex;

use crate::{
    apart::Apart,
    head::Head,
    inspect::Knowledge,
    lanes::{Rivals, Turns},
    looks::Looks,
    poll::PollInterval,
    unsettled::UnsettledClaims,
};

/// The state of each queue that this instance has used.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// A std mutex, locked for a look-up only, never across an await.
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

    /// Wakes the waits of this instance on this queue.
    pub(crate) fn wake(&self, queue: &QueueName) {
        if let Some(state) = self.states().get(queue) {
            state.looks.notify();
        }
    }

    /// Wakes all waits of this instance.
    pub(crate) fn wake_all(&self) {
        for state in self.states().values() {
            state.looks.notify();
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<QueueName, Arc<QueueState>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of one queue.
#[derive(Debug, Default)]
pub(crate) struct QueueState {
    pub(crate) knowledge: Knowledge,
    /// Locked while the queue is prepared: DocumentDB builds one index at a time. A tokio mutex,
    /// because that awaits.
    pub(crate) preparing: Mutex<()>,
    pub(crate) turns: Turns,
    pub(crate) rivals: Rivals,
    pub(crate) head: Head,
    pub(crate) apart: Apart,
    /// Notified when a message may be ready sooner than known: by a call of this instance, or by
    /// a change stream.
    pub(crate) looks: Looks,
    pub(crate) poll_interval: PollInterval,
    /// Claims whose outcome is unknown.
    pub(crate) unsettled: UnsettledClaims,
}
