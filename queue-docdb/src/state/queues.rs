//! The states of the queues that an instance uses.

use std::{collections::HashMap, sync::Arc};

use queue_api::QueueName;
use tokio::sync::Mutex;

use crate::{
    lock::lock,
    state::{
        contention::Contention, cursor::Cursor, entry_cache::EntryCache, knowledge::Knowledge,
        locked::Locked, shared_poll::SharedPoll, sizes::Sizes,
    },
};

/// How many queues without a call an instance remembers at least. The next call on another one finds
/// out again what it needs to know.
const REMEMBERED: usize = 512;

/// The states of the queues that an instance uses, or has used lately.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    states: std::sync::Mutex<States>,
}

#[derive(Debug, Default)]
struct States {
    by_name: HashMap<QueueName, Remembered>,
    /// How many calls there were.
    calls: u64,
    /// How many states there may be before some are forgotten.
    most: usize,
}

#[derive(Debug)]
struct Remembered {
    state: Arc<QueueState>,
    /// The number of the last call.
    last_call: u64,
}

impl States {
    /// Forgets the queues that were not used for longest and have no call under way.
    fn forget(&mut self) {
        let is_idle = |entry: &Remembered| Arc::strong_count(&entry.state) == 1;
        let idle = self.by_name.values().filter(|entry| is_idle(entry));
        let mut idle: Vec<u64> = idle.map(|entry| entry.last_call).collect();
        if idle.len() > REMEMBERED {
            let first = idle.len() - REMEMBERED;
            let (_, &mut first, _) = idle.select_nth_unstable(first);
            self.by_name
                .retain(|_, entry| !is_idle(entry) || entry.last_call >= first);
            // A hash table does not shrink by itself.
            self.by_name.shrink_to(self.by_name.len() + REMEMBERED);
        }
        self.most = self.by_name.len() + REMEMBERED;
    }
}

impl Queues {
    pub(crate) fn state(&self, queue: &QueueName) -> Arc<QueueState> {
        let mut states = lock(&self.states);
        states.calls += 1;
        let last_call = states.calls;
        if let Some(entry) = states.by_name.get_mut(queue) {
            entry.last_call = last_call;
            return Arc::clone(&entry.state);
        }
        if states.by_name.len() >= states.most {
            states.forget();
        }
        let state = Arc::<QueueState>::default();
        let entry = Remembered {
            state: Arc::clone(&state),
            last_call,
        };
        states.by_name.insert(queue.clone(), entry);
        state
    }

    /// Wakes the waits of this instance on this queue.
    pub(crate) fn wake(&self, queue: &QueueName) {
        if let Some(entry) = lock(&self.states).by_name.get(queue) {
            entry.state.shared_poll.notify();
        }
    }

    /// Wakes all waits of this instance.
    pub(crate) fn wake_all(&self) {
        for entry in lock(&self.states).by_name.values() {
            entry.state.shared_poll.notify();
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
        assert_eq!(lock(&queues.states).by_name.len(), 3 * REMEMBERED);
        for n in 0..20 * REMEMBERED {
            queues.state(&name(3 * REMEMBERED + n));
            queues.state(&name(3 * REMEMBERED));
        }
        let number = lock(&queues.states).by_name.len();
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
        let number = lock(&queues.states).by_name.len();
        assert!(number <= 2 * REMEMBERED + 1, "{number}");
    }
}
