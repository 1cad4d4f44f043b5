//! Queues in which calls wait for the next batch, and the tasks that send the batches.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    pin::pin,
    slice,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::Instant};

use super::{
    caller::Caller,
    operation::{CallerOf, Operation, Weight},
};
use crate::{Error, ErrorKind, Limits, QueueBackend, QueueName, Result, catch_panic::backend_call};

/// The most payload bytes in a batch. Sending more takes so long that sharing a round trip gains
/// nothing, and other callers would wait for it.
const MAX_BYTES: usize = 4 << 20;

/// How many scheduler turns a batch waits at most for callers that were answered just now and may call
/// again. A turn takes about a microsecond if nothing else runs.
const MOST_TURNS: u32 = 200;

/// How long it waits for them at most: a turn takes as long as all tasks that are ready to run.
const LONGEST_GATHERING: Duration = Duration::from_millis(1);

/// How long a batch may hold up the next one. After that, both are under way.
const LONGEST_HOLD_UP: Duration = Duration::from_secs(10);

/// How long a call may hang at least.
const LEAST_PATIENCE: Duration = Duration::from_secs(60);

/// A batch is sent after this many scheduler turns in which no caller joined it. One turn is too
/// few with several threads: another thread may be about to run the callers that were answered.
const QUIET_TURNS: u32 = 3;

/// Told to a caller whose own input is valid, if its batch failed and may have taken effect.
const SHARED_BATCH: &str = "another caller's input in the same batch was invalid; whether this call \
                            took effect before is unknown, so repeat it";

/// The batch queues of one operation: one for each queue and visibility timeout.
pub(super) struct BatchQueues<O: Operation> {
    operation: O,
    backend: Arc<dyn QueueBackend>,
    limits: Limits,
    /// One entry for each running [`Sender`], so a queue that is not in use takes no memory.
    ///
    /// A std mutex, because it is held for a few pushes and pops and never across an await.
    active: Mutex<HashMap<Key, BatchQueue<O>>>,
    /// Whether most callers of the last related batch came back at once. Otherwise they are busy with
    /// what they got, and a batch does not wait for them.
    are_returning: AtomicBool,
}

type Key = (QueueName, Option<Duration>);

struct BatchQueue<O: Operation> {
    waiting: VecDeque<CallerOf<O>>,
    weight: Weight,
    /// The number of callers of the last completed batch. It is closed when the sender ends.
    completed: watch::Sender<usize>,
}

impl Weight {
    fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn is_full(self, limits: &Limits) -> bool {
        self.count >= limits.max_batch.get() || self.bytes >= MAX_BYTES
    }

    fn fits(self, limits: &Limits) -> bool {
        self.count <= limits.max_batch.get() && self.bytes <= MAX_BYTES
    }
}

impl<O: Operation> BatchQueue<O> {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            weight: Weight::default(),
            completed: watch::Sender::default(),
        }
    }

    fn push(&mut self, caller: CallerOf<O>) {
        self.weight = self.weight.plus(O::weight(&caller.request));
        self.waiting.push_back(caller);
    }

    /// The callers that waited longest and fit in one batch, at least one. The backend decides on
    /// a request that is too large by itself. Dropped callers are left out.
    fn next_batch(&mut self, limits: &Limits) -> Vec<CallerOf<O>> {
        self.waiting.retain(|caller| !caller.is_dropped());
        let mut weight = Weight::default();
        let mut count = 0;
        for caller in &self.waiting {
            let with_caller = weight.plus(O::weight(&caller.request));
            if count > 0 && !with_caller.fits(limits) {
                break;
            }
            (weight, count) = (with_caller, count + 1);
        }
        let batch = self.waiting.drain(..count).collect();
        let left = self.waiting.iter().map(|caller| O::weight(&caller.request));
        self.weight = left.fold(Weight::default(), Weight::plus);
        batch
    }

    /// Full batches gain nothing from waiting.
    fn full_batches(&mut self, limits: &Limits) -> Vec<Vec<CallerOf<O>>> {
        let mut batches = Vec::new();
        while self.weight.is_full(limits) {
            batches.push(self.next_batch(limits));
        }
        // The weight may have included dropped callers.
        batches.retain(|batch| !batch.is_empty());
        batches
    }
}

impl<O: Operation> BatchQueues<O> {
    pub(super) fn new(operation: O, backend: &Arc<dyn QueueBackend>) -> Arc<Self> {
        Arc::new(Self {
            operation,
            limits: backend.limits(),
            backend: backend.clone(),
            active: Mutex::default(),
            are_returning: AtomicBool::new(true),
        })
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Key, BatchQueue<O>>> {
        self.active.lock().expect("nothing panics in a push or pop")
    }

    fn waiting(&self, key: &Key) -> usize {
        let active = self.active();
        active.get(key).map_or(0, |queue| queue.waiting.len())
    }

    /// Adds a caller to the next batch.
    pub(super) fn submit(self: &Arc<Self>, queue: &QueueName, caller: CallerOf<O>) {
        // First, because these panic outside a runtime, and in one without timers, and must not leave a
        // queue without a sender.
        let runtime = Handle::current();
        drop(tokio::time::timeout(
            LONGEST_HOLD_UP,
            std::future::pending::<()>(),
        ));
        let key = (queue.clone(), O::visibility_timeout(&caller.request));
        let mut active = self.active();
        let is_new = !active.contains_key(&key);
        let batch_queue = active.entry(key.clone()).or_insert_with(BatchQueue::new);
        batch_queue.push(caller);
        let full = batch_queue.full_batches(&self.limits);
        // Unlock before spawning: a runtime that is shutting down drops the task at once, and the
        // drop of a sender takes the lock.
        drop(active);
        for batch in full {
            let (queues, queue) = (self.clone(), queue.clone());
            runtime.spawn(queues.send(queue, batch));
        }
        if is_new {
            let sender = Sender {
                queues: self.clone(),
                key,
                is_open: true,
            };
            runtime.spawn(sender.run());
        }
    }

    /// Waits until the batch that is gathering or in flight is answered. Returns how many callers it
    /// had.
    pub(super) async fn batch_completed(&self, queue: &QueueName) -> usize {
        let key = (queue.clone(), None);
        let subscribe = |queue: &BatchQueue<O>| queue.completed.subscribe();
        let completed = self.active().get(&key).map(subscribe);
        let Some(mut completed) = completed else {
            return 0;
        };
        // An error means that the sender has ended, so no batch is left.
        let _ = completed.changed().await;
        *completed.borrow()
    }

    /// Makes one call for all callers. If one caller's input may have caused an error, the call is
    /// repeated for each of them, so that the others do not get it.
    async fn send(self: Arc<Self>, queue: QueueName, callers: Vec<CallerOf<O>>) {
        let error = match self.call(&queue, &callers).await {
            Ok(answers) => {
                let answered = callers.into_iter().zip(answers);
                return answered.for_each(|(caller, answer)| caller.answer(Ok(answer)));
            }
            Err(error) => error,
        };
        if !error.may_be_one_item() || callers.len() == 1 {
            let failed = callers.into_iter();
            return failed.for_each(|caller| caller.answer(Err(error.clone())));
        }
        let mut is_hanging = false;
        for caller in callers {
            // Each repeat would hold up the next one, and nothing tells whose input the store refused.
            if is_hanging {
                caller.answer(Err(of_shared_batch::<O>(&error)));
                continue;
            }
            let (queues, queue, error) = (self.clone(), queue.clone(), error.clone());
            let alone = async move {
                let answer = queues.call_alone(&queue, &caller, &error).await;
                caller.answer(answer);
            };
            is_hanging = !run_or_detach(alone).await;
        }
    }

    /// Makes one call. If it hangs, it is given up when no caller waits for it any more, but not before
    /// a minute has passed: it may release leases. It may still take effect.
    async fn call(&self, queue: &QueueName, callers: &[CallerOf<O>]) -> Result<Vec<O::Answer>> {
        let call = || self.operation.call(&*self.backend, queue, callers);
        let mut call = pin!(backend_call(O::NAME, call));
        let began = Instant::now();
        loop {
            if let Ok(answer) = tokio::time::timeout(LONGEST_HOLD_UP, &mut call).await {
                return answer;
            }
            if began.elapsed() >= LEAST_PATIENCE && !callers.iter().any(Caller::is_waiting) {
                let message = "the store did not answer in time";
                return Err(Error::new(ErrorKind::TimedOut, O::NAME, message));
            }
        }
    }

    /// Repeats a call that failed with `error`, for one caller.
    async fn call_alone(
        &self,
        queue: &QueueName,
        caller: &CallerOf<O>,
        error: &Error,
    ) -> Result<O::Answer> {
        let mut answers = self.call(queue, slice::from_ref(caller)).await?;
        let answer = answers.remove(0);
        if O::is_certain(&answer) {
            return Ok(answer);
        }
        // `Duplicate` or `Lost` may be the effect of the failed call itself.
        Err(of_shared_batch::<O>(error))
    }
}

/// The error of a batch for a caller whose input may be good.
fn of_shared_batch<O: Operation>(error: &Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidInput => {
            Error::new(ErrorKind::Unavailable, O::NAME, SHARED_BATCH).with_source(error.clone())
        }
        _ => error.clone(),
    }
}

/// Runs a call until it ends or has held up others for too long. Then it goes on in a task of its own.
/// Returns whether it has ended.
async fn run_or_detach(call: impl Future<Output = ()> + Send + 'static) -> bool {
    let mut call = Box::pin(call);
    let has_ended = tokio::time::timeout(LONGEST_HOLD_UP, &mut call)
        .await
        .is_ok();
    if !has_ended {
        tokio::spawn(call);
    }
    has_ended
}

/// The task that sends the batches of one batch queue until it is empty. A batch waits for the one
/// before, but not for one that hangs.
struct Sender<O: Operation> {
    queues: Arc<BatchQueues<O>>,
    key: Key,
    is_open: bool,
}

impl<O: Operation> Sender<O> {
    async fn run(mut self) {
        let queue = self.key.0.clone();
        loop {
            self.gather(0, 0).await;
            let waiting = self.queues.waiting(&self.key);
            // Once for each batch, so that endless acks do not block a lease.
            if waiting > 0 {
                let answered = self.queues.operation.wait_for_related(&queue).await;
                if answered > 0 {
                    self.gather(waiting, answered).await;
                }
            }
            let batch = self.next_batch();
            if !self.is_open {
                return;
            }
            let callers = batch.len();
            let has_ended = run_or_detach(self.queues.clone().send(queue.clone(), batch)).await;
            // Nobody waits for callers of a batch that hangs: they were not answered.
            let answered = if has_ended { callers } else { 0 };
            if let Some(batch_queue) = self.queues.active().get(&self.key) {
                batch_queue.completed.send_replace(answered);
            }
        }
    }

    /// Lets other tasks run for as long as their calls join the batch. Otherwise the first caller
    /// that was answered would go alone, and the others in the round trip after it. This ends,
    /// because a full batch leaves the queue.
    ///
    /// `answered` callers of a related batch were answered after `before` callers waited. If such callers
    /// came back the last time, it waits a little longer for them.
    async fn gather(&self, before: usize, answered: usize) {
        let mut waiting = self.queues.waiting(&self.key);
        let all = before + answered;
        let began = Instant::now();
        let are_returning = &self.queues.are_returning;
        let mut turns = match are_returning.load(Ordering::Relaxed) {
            true => MOST_TURNS,
            false => 0,
        };
        let mut quiet_turns = 0;
        let is_early = || began.elapsed() < LONGEST_GATHERING;
        while quiet_turns < QUIET_TURNS || (waiting < all && turns > 0 && is_early()) {
            tokio::task::yield_now().await;
            turns = turns.saturating_sub(1);
            let last = mem::replace(&mut waiting, self.queues.waiting(&self.key));
            quiet_turns = match waiting > last {
                true => 0,
                false => quiet_turns + 1,
            };
        }
        if answered > 0 {
            let returned = waiting.saturating_sub(before);
            are_returning.store(2 * returned >= answered, Ordering::Relaxed);
        }
    }

    /// Takes the next batch, or closes the batch queue if it is empty. Both happen under one lock,
    /// so that the next caller starts a new sender.
    fn next_batch(&mut self) -> Vec<CallerOf<O>> {
        let mut active = self.queues.active();
        let batch_queue = active.get_mut(&self.key);
        let batch = batch_queue.map(|queue| queue.next_batch(&self.queues.limits));
        let batch = batch.unwrap_or_default();
        if batch.is_empty() {
            active.remove(&self.key);
            self.is_open = false;
        }
        batch
    }
}

impl<O: Operation> Drop for Sender<O> {
    /// If the runtime shuts down, waiting callers get an error, and the next call starts a new
    /// sender in its own runtime.
    fn drop(&mut self) {
        if self.is_open {
            let batch_queue = self.queues.active().remove(&self.key);
            drop(batch_queue);
        }
    }
}
