//! What surrounds the queues: the lock, the clock, and the wake-ups.

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use queue_api::{
    Clock, Delivery, EnqueueOutcome, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome,
    Limits, NewMessage, QueueBackend, QueueName, QueueStats, Receipt, Result, async_trait,
    millis::{self, Millis},
};
use tokio::sync::Notify;

use crate::{
    clock::{NeverBack, RuntimeClock},
    queue::MemoryQueue,
};

/// Queues in memory.
///
/// A clone is another handle on the same queues. They live as long as one handle does.
///
/// ```
/// use queue_api::{ErrorKind, NewMessage, Queue};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// let backend = MemoryBackend::new().with_max_depth(1);
/// let queue = Queue::new(std::sync::Arc::new(backend), "small")?;
/// queue.enqueue(&NewMessage::new("first")).await?;
///
/// let error = queue.enqueue(&NewMessage::new("second")).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::QueueFull);
/// assert!(error.is_retryable());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryBackend {
    clock: Arc<dyn Clock>,
    max_depth: usize,
    /// C1, C2: each call takes the lock once and has no await point under it. So it takes effect
    /// as a whole or not at all, and one call at a time. That is also why a std mutex suffices.
    queues: Arc<Mutex<HashMap<QueueName, Entry>>>,
}

/// A queue that holds messages or that a `wait` call is waiting for. Any other queue is empty,
/// and has no entry (Q1).
#[derive(Debug, Default)]
struct Entry {
    queue: MemoryQueue,
    /// How many `wait` calls are running.
    waiters: usize,
    /// Notified when the first message is ready earlier than it was.
    earlier: Arc<Notify>,
}

impl MemoryBackend {
    /// Makes a backend without messages. It uses tokio's clock, so a test with paused time skips
    /// delays and timeouts.
    ///
    /// Several runtimes can share it, such as tests that share a `static`. The time that one test skips
    /// does not pass in others that have begun. A test that begins later starts at the latest time so
    /// far.
    pub fn new() -> Self {
        Self {
            clock: Arc::new(RuntimeClock::new()),
            max_depth: usize::MAX,
            queues: Arc::default(),
        }
    }

    /// Takes the time from another clock. If that clock goes back, the queues' time stands still
    /// until it has caught up.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Arc::new(NeverBack::new(clock));
        self
    }

    /// Limits each queue to `messages`, dead letters included. A batch is stored as far as it
    /// fits; then enqueue fails with [`QueueFull`](ErrorKind::QueueFull), which is retryable.
    #[must_use]
    pub fn with_max_depth(mut self, messages: usize) -> Self {
        self.max_depth = messages;
        self
    }

    fn now(&self) -> Millis {
        millis::floor(self.clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueName, Entry>> {
        // A panic under the lock is a bug here, and may have left a queue inconsistent.
        self.queues
            .lock()
            .expect("a call on the memory backend has panicked")
    }

    /// Runs `operation` on a queue, and wakes its `wait` calls if a message is ready earlier.
    pub(crate) fn with_queue<T>(
        &self,
        name: &QueueName,
        operation: impl FnOnce(&mut MemoryQueue, Millis) -> T,
    ) -> T {
        let mut queues = self.lock();
        let entry = queues.entry(name.clone()).or_default();
        let before = entry.queue.next_ready();
        let answer = operation(&mut entry.queue, self.now());
        let after = entry.queue.next_ready();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            entry.earlier.notify_waiters();
        }
        if entry.is_unused() {
            forget(&mut queues, name);
        }
        answer
    }

    /// The queues that hold messages.
    pub(crate) fn names(&self) -> Vec<QueueName> {
        let queues = self.lock();
        let used = queues.iter().filter(|(_, entry)| entry.queue.len() > 0);
        let mut names: Vec<_> = used.map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }
}

fn forget(queues: &mut HashMap<QueueName, Entry>, name: &QueueName) {
    queues.remove(name);
    if queues.len() < queues.capacity() / 8 {
        // A hash table does not shrink by itself.
        queues.shrink_to(2 * queues.len());
    }
}

impl Entry {
    /// Unused entries are removed, so that names alone take no memory.
    fn is_unused(&self) -> bool {
        self.queue.len() == 0 && self.waiters == 0
    }
}

/// A `wait` call, which keeps the entry of its queue.
struct Waiter<'a> {
    backend: &'a MemoryBackend,
    queue: &'a QueueName,
    earlier: Arc<Notify>,
}

impl<'a> Waiter<'a> {
    fn new(backend: &'a MemoryBackend, queue: &'a QueueName) -> Self {
        let mut queues = backend.lock();
        let entry = queues.entry(queue.clone()).or_default();
        entry.waiters += 1;
        Self {
            backend,
            queue,
            earlier: entry.earlier.clone(),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // No second panic while the first unwinds.
        let Ok(mut queues) = self.backend.queues.lock() else {
            return;
        };
        if let Some(entry) = queues.get_mut(self.queue) {
            entry.waiters -= 1;
            if entry.is_unused() {
                forget(&mut queues, self.queue);
            }
        }
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
        let max_depth = self.max_depth;
        self.with_queue(queue, |stored, now| {
            let mut outcomes = Vec::with_capacity(messages.len());
            stored.reserve(messages.len());
            for message in messages {
                if stored.len() >= max_depth && !stored.contains(&message.id) {
                    // X1: on a repeat, the messages stored so far are duplicates.
                    let text = format!(
                        "queue {queue} holds {max_depth} messages, its depth limit; \
                         {} of {} were accepted",
                        outcomes.len(),
                        messages.len()
                    );
                    return Err(Error::new(ErrorKind::QueueFull, "enqueue", text));
                }
                outcomes.push(stored.enqueue(message, now));
            }
            Ok(outcomes)
        })
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        Ok(self.with_queue(queue, |queue, now| queue.lease(options, now)))
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        Ok(self.with_queue(queue, |queue, _| {
            let ack = |receipt| queue.ack(receipt);
            receipts.iter().map(ack).collect()
        }))
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        Ok(self.with_queue(queue, |queue, now| {
            let change = |change| queue.change(change, now);
            changes.iter().map(change).collect()
        }))
    }

    /// W1: returns at the ready time of the first message. If that time moves forward, the loop
    /// looks again.
    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let deadline = self.now().saturating_add(millis::ceil(at_most));
        let mut time_is_up = pin!(tokio_time(at_most));
        let waiter = Waiter::new(self, queue);
        loop {
            // Registered before the look, so no change in between is missed.
            let mut earlier = pin!(waiter.earlier.notified());
            earlier.as_mut().enable();
            let next_ready = self.with_queue(queue, |queue, _| queue.next_ready());
            let until = next_ready.map_or(deadline, |at| at.min(deadline));
            if until <= self.now() {
                return Ok(());
            }
            tokio::select! {
                () = earlier => {}
                () = self.clock.sleep_until(millis::to_time(until)) => {}
                () = &mut time_is_up => return Ok(()),
            }
        }
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        Ok(self.with_queue(queue, |queue, now| queue.stats(now)))
    }
}

/// Ends a wait while the backend's clock stands still.
#[allow(clippy::disallowed_methods)]
async fn tokio_time(at_most: Duration) {
    tokio::time::sleep(at_most).await;
}
