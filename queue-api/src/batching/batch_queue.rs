//! Where calls gather, and how they go out.

use std::{
    collections::{HashMap, VecDeque},
    fmt, mem, slice,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::watch;

use super::{Shared, call::Call, caller::Caller};
use crate::{
    Error, ErrorKind, Limits, QueueBackend, QueueName, Receipt, Result, consumer::panic::caught,
};

/// Payloads beyond this are not gathered into one call, in bytes: it takes so long to send them
/// that a round trip saved makes no difference, and others would wait for it.
const MOST_BYTES: usize = 4 << 20;

/// How often in a row all others have run without anybody joining, before a batch is sent. On
/// several threads one turn is too few: another thread may be about to run those who were just
/// answered.
const QUIET_TURNS: u32 = 3;

/// A backend's queue, as calls are made to it.
#[derive(Clone)]
pub(super) struct Target {
    shared: Arc<Shared>,
    pub(super) queue: QueueName,
}

/// The calls of one kind that wait for their turn. A queue is there for as long as a task is that
/// sends what gathers in it, so a queue that nobody calls takes no memory.
pub(super) struct BatchQueues<C: Call> {
    /// A std mutex: it is held for the length of a few pushes and pops and never across an await.
    queues: Mutex<HashMap<QueueKey, BatchQueue<C>>>,
}

type QueueKey = (QueueName, Option<Duration>);

struct BatchQueue<C: Call> {
    waiting: VecDeque<Caller<C>>,
    weight: Weight,
    /// Tells of every batch that was answered, and by its end that the queue is closed.
    landings: watch::Sender<()>,
}

/// What counts against the bounds of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Weight {
    /// Things without a payload.
    pub(super) fn of(count: usize) -> Self {
        Self { count, bytes: 0 }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn is_full(self, limits: &Limits) -> bool {
        self.count >= limits.max_batch || self.bytes >= MOST_BYTES
    }

    fn fits(self, limits: &Limits) -> bool {
        self.count <= limits.max_batch && self.bytes <= MOST_BYTES
    }
}

impl<C: Call> Default for BatchQueues<C> {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
        }
    }
}

impl<C: Call> BatchQueues<C> {
    fn lock(&self) -> MutexGuard<'_, HashMap<QueueKey, BatchQueue<C>>> {
        self.queues.lock().expect("nothing panics in a push or pop")
    }

    /// How many wait in a queue.
    fn waiting(&self, key: &QueueKey) -> usize {
        self.lock().get(key).map_or(0, |queue| queue.waiting.len())
    }

    /// The end of the batch of a queue that is sent next or under way, if there is one.
    fn landing(&self, key: &QueueKey) -> Option<watch::Receiver<()>> {
        let queues = self.lock();
        queues.get(key).map(|queue| queue.landings.subscribe())
    }
}

impl<C: Call> BatchQueue<C> {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            weight: Weight::default(),
            landings: watch::Sender::default(),
        }
    }

    fn push(&mut self, caller: Caller<C>) {
        self.weight = self.weight.plus(caller.call.weight());
        self.waiting.push_back(caller);
    }

    /// The longest waiting that fit in one batch, at least one of them, for what one caller asks
    /// for is passed on as it is. Those who are gone drop out: they were not sent.
    fn next_batch(&mut self, limits: &Limits) -> Vec<Caller<C>> {
        self.waiting.retain(|caller| !caller.is_gone());
        let mut weight = Weight::default();
        let mut count = 0;
        for caller in &self.waiting {
            let with_it = weight.plus(caller.call.weight());
            if count > 0 && !with_it.fits(limits) {
                break;
            }
            (weight, count) = (with_it, count + 1);
        }
        let batch = self.waiting.drain(..count).collect();
        let left = self.waiting.iter().map(|caller| caller.call.weight());
        self.weight = left.fold(Weight::default(), Weight::plus);
        batch
    }

    /// Batches that gain nothing from waiting any longer.
    fn full_batches(&mut self, limits: &Limits) -> Vec<Vec<Caller<C>>> {
        let mut batches = Vec::new();
        while self.weight.is_full(limits) {
            batches.push(self.next_batch(limits));
        }
        // Of those who filled it some may have been gone already.
        batches.retain(|batch| !batch.is_empty());
        batches
    }
}

impl Target {
    pub(super) fn new(shared: &Arc<Shared>, queue: &QueueName) -> Self {
        Self {
            shared: shared.clone(),
            queue: queue.clone(),
        }
    }

    pub(super) fn backend(&self) -> &dyn QueueBackend {
        &*self.shared.backend
    }

    /// Has a caller take part in the next call of its kind.
    pub(super) fn join<C: Call>(&self, caller: Caller<C>) {
        let key = (self.queue.clone(), caller.call.visibility_timeout());
        let mut queues = C::queues(&self.shared).lock();
        let is_new = !queues.contains_key(&key);
        let queue = queues.entry(key.clone()).or_insert_with(BatchQueue::new);
        queue.push(caller);
        let full = queue.full_batches(&self.shared.limits);
        // A runtime that is shutting down drops what it is given at once, and the drop of a
        // sender takes the lock.
        drop(queues);
        for batch in full {
            let target = self.clone();
            tokio::spawn(async move { target.send(batch).await });
        }
        if is_new {
            let sender = Sender::<C> {
                target: self.clone(),
                key,
                queues: C::queues,
                is_open: true,
            };
            tokio::spawn(sender.run());
        }
    }

    /// Returns when the batch of acks that is gathering or under way has been answered, if there
    /// is one, and whether there was. Whoever is told of an ack is likely to lease next: a lease
    /// that goes at the same time as acks goes without their callers, and from then on the
    /// callers are in two halves, each of which takes its own round trips.
    pub(super) async fn acks_landed(&self) -> bool {
        let key = (self.queue.clone(), None);
        let landing = BatchQueues::<Vec<Receipt>>::landing(&self.shared.acks, &key);
        let Some(mut landing) = landing else {
            return false;
        };
        // An error says that the queue is closed, which is all the better.
        let _ = landing.changed().await;
        true
    }

    /// Makes one call for all of them. If it fails for what may be the fault of one, each part is
    /// made alone, so that nobody suffers from what somebody else sent.
    async fn send<C: Call>(&self, callers: Vec<Caller<C>>) {
        let error = match self.make(&callers).await {
            Ok(answers) => {
                let answered = callers.into_iter().zip(answers);
                return answered.for_each(|(caller, answer)| caller.answer(Ok(answer)));
            }
            Err(error) => error,
        };
        let is_of_one = matches!(
            error.kind(),
            ErrorKind::InvalidInput | ErrorKind::Codec | ErrorKind::Internal
        );
        if !is_of_one || callers.len() == 1 {
            return callers
                .into_iter()
                .for_each(|caller| caller.answer(Err(error.clone())));
        }
        for caller in callers {
            let answer = self.make_alone(&caller, &error).await;
            caller.answer(answer);
        }
    }

    async fn make<C: Call>(&self, callers: &[Caller<C>]) -> Result<Vec<C::Answer>> {
        let answer = caught(|| C::make(self, callers)).await;
        answer.unwrap_or_else(|panic| {
            let message = format!("the backend {panic}");
            Err(Error::new(ErrorKind::Internal, C::OPERATION, message))
        })
    }

    /// One caller's part of a call that failed with `error`.
    async fn make_alone<C: Call>(&self, caller: &Caller<C>, error: &Error) -> Result<C::Answer> {
        let mut answers = self.make(slice::from_ref(caller)).await?;
        let answer = answers.remove(0);
        // Of bad input nothing was sent to the store. Any other failure may have come after this
        // part was carried out, and then `Duplicate` or `Lost` would be about this very call.
        if error.kind() == ErrorKind::InvalidInput || C::is_certain(&answer) {
            return Ok(answer);
        }
        Err(error.clone())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.queue).finish()
    }
}

/// The task that sends what gathers in a queue, one batch after the other, until nothing is left.
struct Sender<C: Call> {
    target: Target,
    key: QueueKey,
    queues: fn(&Shared) -> &BatchQueues<C>,
    is_open: bool,
}

impl<C: Call> Sender<C> {
    async fn run(mut self) {
        loop {
            self.gather().await;
            // Once for each batch, so that acks which never end keep nobody from leasing.
            if self.queues().waiting(&self.key) > 0 && C::after_others(&self.target).await {
                self.gather().await;
            }
            let batch = self.next_batch();
            if !self.is_open {
                return;
            }
            self.target.send(batch).await;
            if let Some(queue) = self.queues().lock().get(&self.key) {
                queue.landings.send_replace(());
            }
        }
    }

    fn queues(&self) -> &BatchQueues<C> {
        (self.queues)(&self.target.shared)
    }

    /// Lets those who were just answered, and whoever else is about to call, join, for as long
    /// as somebody does. Without it the first of them would go alone, and the others in the
    /// round trip after it. It ends, because a batch that is full does not wait in the queue.
    async fn gather(&self) {
        let mut waiting = self.queues().waiting(&self.key);
        let mut quiet_turns = 0;
        while quiet_turns < QUIET_TURNS {
            tokio::task::yield_now().await;
            let before = mem::replace(&mut waiting, self.queues().waiting(&self.key));
            quiet_turns = match waiting > before {
                true => 0,
                false => quiet_turns + 1,
            };
        }
    }

    /// Closes the queue if nobody waits in it: under the lock, so that whoever comes next sees
    /// that it has to be opened again.
    fn next_batch(&mut self) -> Vec<Caller<C>> {
        let mut queues = (self.queues)(&self.target.shared).lock();
        let queue = queues.get_mut(&self.key);
        let batch = queue.map(|queue| queue.next_batch(&self.target.shared.limits));
        let batch = batch.unwrap_or_default();
        if batch.is_empty() {
            queues.remove(&self.key);
            self.is_open = false;
        }
        batch
    }
}

impl<C: Call> Drop for Sender<C> {
    /// The runtime shuts down. Those who wait are told, and the next caller opens the queue again,
    /// on a runtime that runs.
    fn drop(&mut self) {
        if self.is_open {
            let queue = self.queues().lock().remove(&self.key);
            drop(queue);
        }
    }
}
