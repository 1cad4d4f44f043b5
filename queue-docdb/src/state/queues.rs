//! The states of the queues that an instance uses.

use std::sync::Arc;

use queue_api::QueueName;
use tokio::sync::Mutex;

use crate::{
    lock::lock,
    state::{
        contention::Contention, cursor::Cursor, entry_cache::EntryCache, knowledge::Knowledge,
        locked::Locked, recent::Recent, shared_poll::SharedPoll, sizes::Sizes,
    },
};

/// How many queues without a call an instance remembers at least. The next call on another one finds
/// out again what it needs to know.
const REMEMBERED: usize = 512;

/// The states of the queues that an instance uses, or has used lately.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    states: std::sync::Mutex<Recent<QueueName, Arc<QueueState>, REMEMBERED>>,
}

impl Queues {
    pub(crate) fn state(&self, queue: &QueueName) -> Arc<QueueState> {
        let mut states = lock(&self.states);
        let state = states.take(queue).unwrap_or_default();
        let has_call = |state: &Arc<QueueState>| Arc::strong_count(state) > 1;
        states.put(queue.clone(), Arc::clone(&state), has_call);
        state
    }

    /// Wakes the waits of this instance on this queue.
    pub(crate) fn wake(&self, queue: &QueueName) {
        if let Some(state) = lock(&self.states).get(queue) {
            state.shared_poll.notify();
        }
    }

    /// Wakes all waits of this instance.
    pub(crate) fn wake_all(&self) {
        for state in lock(&self.states).values() {
            state.shared_poll.notify();
        }
    }
}

/// The state of one queue.
#[derive(Debug, Default)]
pub(crate) struct QueueState {
    pub(crate) knowledge: Knowledge,
    /// Locked while the queue is prepared: DocumentDB builds one index at a time. A tokio mutex,
    /// because that awaits.
    pub(crate) preparing: Mutex<()>,
    pub(crate) contention: Contention,
    pub(crate) cursor: Cursor,
    pub(crate) locked: Locked,
    pub(crate) cache: EntryCache,
    pub(crate) sizes: Sizes,
    /// The same for pages, which read other entries than claims.
    pub(crate) listed_sizes: Sizes,
    /// Notified when a message may be ready sooner than known: by a call of this instance, or by
    /// a change stream.
    pub(crate) shared_poll: SharedPoll,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> QueueName {
        QueueName::new(&format!("q{n}")).expect("valid")
    }

    #[test]
    fn queues_without_a_call_are_forgotten_and_those_in_use_are_not() {
        let queues = Queues::default();
        let used: Vec<_> = (0..3 * REMEMBERED)
            .map(|n| queues.state(&name(n)))
            .collect();
        assert_eq!(lock(&queues.states).values().count(), 3 * REMEMBERED);
        for n in 0..20 * REMEMBERED {
            queues.state(&name(3 * REMEMBERED + n));
            queues.state(&name(3 * REMEMBERED));
        }
        let number = lock(&queues.states).values().count();
        assert!(number <= 5 * REMEMBERED, "{number}");
        for (n, state) in used.iter().enumerate() {
            assert!(Arc::ptr_eq(state, &queues.state(&name(n))), "{n}");
        }
        // One without a call that is used again and again stays.
        let often = Arc::downgrade(&queues.state(&name(3 * REMEMBERED)));
        drop(used);
        for n in 0..REMEMBERED {
            queues.state(&name(30 * REMEMBERED + n));
            queues.state(&name(3 * REMEMBERED));
        }
        assert!(often.upgrade().is_some());
        let number = lock(&queues.states).values().count();
        assert!(number <= 2 * REMEMBERED + 1, "{number}");
    }
}
