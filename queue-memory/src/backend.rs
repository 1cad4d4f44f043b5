//! The contract on top of [`State`]: the lock, the clock, and who is woken when.

use std::{
    fmt,
    num::NonZeroU64,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use hashbrown::HashMap;
use queue_api::{
    Clock, Delivery, EnqueueOutcome, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome,
    Limits, NewMessage, QueueBackend, QueueName, QueueStats, Receipt, Result, TokioClock,
    async_trait,
    millis::{self, Millis},
};
use tokio::sync::{Notify, futures::OwnedNotified};
use uuid::Uuid;

use crate::state::State;

/// Queues in memory.
///
/// Cloning it gives another handle on the same queues. They live as long as one handle does,
/// and nothing runs in the background.
///
/// ```
/// use queue_api::{ErrorKind, NewMessage, Queue};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// let backend = MemoryBackend::new().with_max_depth(1);
/// let queue = Queue::new(std::sync::Arc::new(backend), "small")?;
/// queue.enqueue(&NewMessage::new("fits")).await?;
///
/// let full = queue.enqueue(&NewMessage::new("does not")).await.unwrap_err();
/// assert_eq!(full.kind(), ErrorKind::QueueFull);
/// assert!(full.is_retryable());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryBackend {
    clock: Arc<dyn Clock>,
    max_depth: usize,
    /// A std mutex: it is held for the length of one operation on a plain data structure and
    /// never across an await, so there is nothing an async mutex would be better at.
    store: Arc<Mutex<Store>>,
}

#[derive(Debug)]
struct Store {
    queues: HashMap<QueueName, Entry>,
    /// The token of the last delivery. It starts at random, so that no receipt of one store is
    /// one of another's.
    last_token: NonZeroU64,
}

#[derive(Debug, Default)]
struct Entry {
    state: State,
    /// Notified when the queue's head comes to be due earlier than a waiter may have seen.
    earlier: Arc<Notify>,
}

impl MemoryBackend {
    /// Empty queues on tokio's clock, so that a paused runtime skips through timeouts.
    pub fn new() -> Self {
        Self {
            clock: Arc::new(TokioClock::new()),
            max_depth: usize::MAX,
            store: Arc::new(Mutex::new(Store {
                queues: HashMap::new(),
                last_token: NonZeroU64::new(Uuid::new_v4().as_u64_pair().0)
                    .unwrap_or(NonZeroU64::MIN),
            })),
        }
    }

    /// Takes time from another clock. One that goes back is an error of whoever moves it: time
    /// stands still in a queue until the clock has caught up.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Holds at most `messages` in each queue, dead letters among them. Beyond it enqueue
    /// answers [`QueueFull`](ErrorKind::QueueFull), which is retryable; of a batch, what fits
    /// is stored.
    #[must_use]
    pub fn with_max_depth(mut self, messages: usize) -> Self {
        self.max_depth = messages;
        self
    }

    pub(crate) fn now(&self) -> Millis {
        millis::floor(self.clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // A panic while the lock was held is a bug in `State`; what it left cannot be trusted.
        self.store
            .lock()
            .expect("an operation on the memory backend panicked")
    }

    /// Runs `operation` on a queue and wakes those who wait for it if its head moved forward.
    pub(crate) fn with_state<T>(
        &self,
        queue: &QueueName,
        operation: impl FnOnce(&mut State, &mut NonZeroU64) -> T,
    ) -> T {
        let mut store = self.lock();
        let Store { queues, last_token } = &mut *store;
        let Some(entry) = queues.get_mut(queue) else {
            // Nobody waits for a queue that is not there. It is made by what is put into it, not
            // by being looked at, so names alone take no memory.
            let mut entry = Entry::default();
            let answer = operation(&mut entry.state, last_token);
            if entry.state.messages.len() > 0 {
                queues.insert(queue.clone(), entry);
            }
            return answer;
        };
        let before = entry.state.head();
        let answer = operation(&mut entry.state, last_token);
        let after = entry.state.head();
        let earlier = after.is_some_and(|after| before.is_none_or(|before| after < before));
        let notify = earlier.then(|| entry.earlier.clone());
        // Released first, so that those woken do not run into the lock.
        drop(store);
        if let Some(notify) = notify {
            notify.notify_waiters();
        }
        answer
    }

    /// When the queue's first message falls due, and what ends as soon as that changes for the
    /// better: taken under one lock, so nothing slips in between.
    fn head_and_alarm(&self, queue: &QueueName) -> (Option<Millis>, Pin<Box<OwnedNotified>>) {
        let mut store = self.lock();
        let entry = store.queues.entry(queue.clone()).or_default();
        let mut earlier = Box::pin(entry.earlier.clone().notified_owned());
        earlier.as_mut().enable();
        (entry.state.head(), earlier)
    }

    /// Removes a queue. Who waited for it looks again and waits for its successor.
    pub(crate) fn forget(&self, queue: &QueueName) {
        let removed = self.lock().queues.remove(queue);
        if let Some(removed) = removed {
            removed.earlier.notify_waiters();
        }
    }

    pub(crate) fn names(&self) -> Vec<QueueName> {
        let mut names: Vec<_> = self.lock().queues.keys().cloned().collect();
        names.sort();
        names
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("clock", &self.clock)
            .field("max_depth", &self.max_depth)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl QueueBackend for MemoryBackend {
    fn limits(&self) -> Limits {
        Limits::STANDARD
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        self.with_state(queue, |state, _| {
            state.advance(self.now());
            let mut outcomes = Vec::with_capacity(messages.len());
            for message in messages {
                let full = state.messages.len() >= self.max_depth;
                if full && state.messages.find(message.id.as_str()).is_none() {
                    return Err(Error::new(
                        ErrorKind::QueueFull,
                        "enqueue",
                        format!(
                            "queue {queue} holds {} messages, its depth limit; \
                             {} of {} were taken",
                            self.max_depth,
                            outcomes.len(),
                            messages.len()
                        ),
                    ));
                }
                outcomes.push(state.enqueue(message));
            }
            Ok(outcomes)
        })
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let visibility = options.visibility_timeout().map(millis::ceil);
        Ok(self.with_state(queue, |state, last_token| {
            state.advance(self.now());
            state.lease(options.max_messages(), visibility, || {
                *last_token = last_token.checked_add(1).unwrap_or(NonZeroU64::MIN);
                *last_token
            })
        }))
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        Ok(self.with_state(queue, |state, _| {
            let outcomes = receipts.iter().map(|receipt| state.ack(receipt)).collect();
            state.compact();
            outcomes
        }))
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        Ok(self.with_state(queue, |state, _| {
            state.advance(self.now());
            let change = |change: &LeaseChange| state.change(&change.receipt, &change.action);
            changes.iter().map(change).collect()
        }))
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let deadline = self.now().saturating_add(millis::ceil(at_most));
        loop {
            let (head, earlier) = self.head_and_alarm(queue);
            let until = head.map_or(deadline, |due| due.min(deadline));
            if until <= self.now() {
                return Ok(());
            }
            tokio::select! {
                () = earlier => {}
                () = self.clock.sleep_until(millis::to_time(until)) => {}
            }
        }
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        Ok(self.with_state(queue, |state, _| {
            state.advance(self.now());
            state.stats()
        }))
    }
}
