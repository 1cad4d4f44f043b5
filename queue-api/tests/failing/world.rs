//! The store of one case, and what is known about each message.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use queue_api::{
    Clock, Delivery, EnqueueOutcome, ErrorKind, LeaseAction, LeaseChange, LeaseOptions,
    LeaseOutcome, Limits, MessageId, NewMessage, PageOptions, Queue, QueueAdmin, QueueBackend,
    QueueName, Receipt, Result, TokioClock, async_trait, trace::TRACEPARENT,
};
use queue_memory::MemoryBackend;
use queue_test_support::{Delegate, Delegated, Fault, Faulty, Operation};

use crate::{
    case::{Case, Trouble},
    code::{Code, PanickingClock},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The visibility timeout of all messages.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(30);

/// How long a store fails that does not fail once only.
const FAILING: Duration = Duration::from_secs(200);

/// How long it may take until all messages are handled. A lease call that hangs costs a minute, and
/// what it leased comes back after its visibility timeout.
const RECOVERY: Duration = Duration::from_secs(900);

/// The trace of the senders.
const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What is done with a message. Its id begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is handled at once.
    Plain,
    /// It fails the first time.
    Retry,
    /// The code that handles it panics the first time.
    Panic,
    /// It is released the first time, where that can be done.
    Release,
    /// Its lease is extended.
    Extend,
    /// It takes longer than its visibility timeout.
    Long,
    /// It enqueues another message.
    Parent,
    /// It becomes a dead letter.
    Dead,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Retry,
        Self::Panic,
        Self::Release,
        Self::Extend,
        Self::Long,
        Self::Parent,
        Self::Dead,
    ];

    pub(crate) fn of(id: &MessageId) -> Self {
        let is_of = |kind: &&Self| id.as_str().starts_with(&format!("{kind:?}"));
        let kind = Self::ALL.iter().find(is_of);
        *kind.unwrap_or(&Self::Plain)
    }
}

/// What the subject was told, and what it did.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Of each receipt.
    ids: BTreeMap<String, MessageId>,
    /// Confirmed as stored.
    pub(crate) stored: BTreeSet<MessageId>,
    /// Confirmed as acked.
    acked: BTreeSet<MessageId>,
    /// How often handling began.
    begun: BTreeMap<MessageId, usize>,
    handled: BTreeSet<MessageId>,
    /// The errors that the subject reported.
    pub(crate) errors: Vec<String>,
    /// What is wrong.
    pub(crate) problems: BTreeSet<String>,
}

/// One case's store and subject.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) case: Case,
    pub(crate) clock: Arc<TokioClock>,
    store: MemoryBackend,
    pub(crate) faulty: Arc<Delegated<Faulty>>,
    /// Code of the application.
    pub(crate) code: Code,
    /// The backend of the subject.
    pub(crate) backend: Arc<Delegated<Witness>>,
    known: Arc<Mutex<Known>>,
    /// When a store that does not fail once only is mended.
    mended_at: SystemTime,
}

/// Forwards to the backend that fails, and records what the subject is told.
#[derive(Debug)]
pub(crate) struct Witness {
    inner: Arc<Delegated<Faulty>>,
    known: Arc<Mutex<Known>>,
}

impl World {
    pub(crate) fn new(case: Case) -> Arc<Self> {
        let clock = Arc::new(TokioClock::new());
        let mended_at = clock.now() + FAILING;
        let store = MemoryBackend::new().with_clock(clock.clone());
        let faulty = Faulty::new(Arc::new(store.clone()));
        let code = match case.trouble {
            Trouble::Store(operation, fault) => {
                faulty.plan(operation, fault, case.skip, case.once);
                Code::default()
            }
            // A few errors of the store, which call the hook and are logged.
            Trouble::Code(place) => {
                for operation in [Operation::Lease, Operation::Wait, Operation::Ack] {
                    let fault = Fault::Before(ErrorKind::Unavailable);
                    for skip in 1..4 {
                        faulty.plan(operation, fault, skip, true);
                    }
                }
                Code::new(place, case.skip, case.once)
            }
        };
        let known = Arc::new(Mutex::new(Known::default()));
        let witness = Witness {
            inner: faulty.clone(),
            known: known.clone(),
        };
        Arc::new(Self {
            case,
            clock,
            store,
            faulty,
            code,
            backend: Arc::new(Delegated(witness)),
            known,
            mended_at,
        })
    }

    /// How many calls met the trouble.
    pub(crate) fn met(&self) -> usize {
        match self.case.trouble {
            Trouble::Store(..) => self.faulty.met(),
            Trouble::Code(_) => self.code.met(),
        }
    }

    /// The application's clock.
    pub(crate) fn own_clock(&self) -> Arc<PanickingClock> {
        Arc::new(PanickingClock(self.code.clone(), self.clock.clone()))
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// The subject's handle.
    pub(crate) fn queue(&self, name: &str) -> Queue {
        self.queue_on(self.backend.clone(), name)
    }

    pub(crate) fn queue_on(&self, backend: Arc<dyn QueueBackend>, name: &str) -> Queue {
        let propagator = Arc::new(self.code.clone());
        Queue::new(backend, name)
            .unwrap()
            .with_propagator(propagator)
    }

    /// Another process's handle: without faults.
    pub(crate) fn elsewhere(&self, name: &str) -> Queue {
        Queue::new(Arc::new(self.store.clone()), name).unwrap()
    }

    pub(crate) async fn pause(&self, time: Duration) {
        self.clock.sleep_until(self.clock.now() + time).await;
    }

    pub(crate) fn problem(&self, text: impl Into<String>) {
        self.known().problems.insert(text.into());
    }

    pub(crate) fn error(&self, error: &queue_api::Error) {
        self.known().errors.push(format!("{error:?}"));
    }

    /// Another process stores a message of each kind.
    pub(crate) async fn store(&self, queue: &str, label: &str) {
        let message =
            |kind: &Kind| message(&format!("{kind:?}-{label}")).with_header(TRACEPARENT, CONTEXT);
        let messages: Vec<_> = Kind::ALL.iter().map(message).collect();
        let queue = self.elsewhere(queue);
        queue.enqueue_batch(&messages).await.unwrap();
        let ids = messages.into_iter().map(|message| message.id);
        self.known().stored.extend(ids);
    }

    /// An answer that cannot be true, and a panic of the store, are errors that say so.
    pub(crate) fn judge_errors(&self) {
        let text = match self.case.trouble {
            Trouble::Store(operation, fault) if self.case.subject.reports(operation) => match fault
            {
                Fault::TooFew | Fault::TooMany if operation != Operation::Lease => {
                    "it must return one for each"
                }
                Fault::Panics | Fault::PanicsAfter => "the backend panicked: a fault of the test",
                Fault::Before(kind) | Fault::After(kind) => kind.as_str(),
                _ => return,
            },
            _ => return,
        };
        let is_told = |errors: &[String]| errors.iter().any(|error| error.contains(text));
        if self.met() > 0 && !is_told(&self.known().errors) {
            self.problem(format!("no error says \"{text}\""));
        }
    }

    /// Handling begins. Returns how often it began before.
    pub(crate) fn begins(&self, id: &MessageId) -> usize {
        let mut known = self.known();
        if known.acked.contains(id) {
            let problem = format!("{id} is handled after its ack was confirmed");
            known.problems.insert(problem);
        }
        let begun = known.begun.entry(id.clone()).or_default();
        *begun += 1;
        *begun - 1
    }

    /// Handling ended well, and its message may be acked.
    pub(crate) fn handled(&self, id: &MessageId) {
        self.known().handled.insert(id.clone());
    }

    /// The messages that are neither handled nor dead letters as they should be.
    async fn open(&self, queues: &[&str]) -> Vec<String> {
        let mut live = BTreeSet::new();
        let mut dead = BTreeSet::new();
        for queue in queues {
            let queue = QueueName::new(queue).unwrap();
            let page = PageOptions::new(1000);
            let messages = self.store.messages(&queue, &page).await.unwrap().messages;
            live.extend(messages.into_iter().map(|one| one.id));
            let letters = self.store.dead_letters(&queue, &page).await.unwrap();
            dead.extend(letters.letters.into_iter().map(|one| one.id));
        }
        let known = self.known();
        let mut open = Vec::new();
        for id in &known.stored {
            let should_die = Kind::of(id) == Kind::Dead;
            let (is_live, is_dead) = (live.contains(id), dead.contains(id));
            let is_handled = known.handled.contains(id);
            if is_live || is_dead != should_die || is_handled == should_die {
                open.push(format!(
                    "{id} (live: {is_live}, dead: {is_dead}, handled: {is_handled})"
                ));
            }
        }
        open
    }

    /// Whether the store has failed for long enough. It does not fail from then on.
    pub(crate) fn is_mended(&self) -> bool {
        let is_due = !self.case.once && self.clock.now() >= self.mended_at;
        if is_due {
            self.faulty.clear();
            self.code.mend();
        }
        is_due
    }

    /// Mends the store after a while, and waits until all messages are handled.
    pub(crate) async fn recovered(&self, queues: &[&str], expected: usize) {
        if !self.case.once {
            self.clock.sleep_until(self.mended_at).await;
            assert!(self.is_mended());
        }
        let until = self.clock.now() + RECOVERY;
        loop {
            let open = self.open(queues).await;
            let stored = self.known().stored.len();
            if open.is_empty() && stored >= expected {
                return;
            }
            if self.clock.now() >= until {
                let open = open.join(", ");
                return self.problem(format!(
                    "after the fault, {stored} of {expected} are stored; not handled: {open}"
                ));
            }
            self.pause(SECOND * 5).await;
        }
    }
}

pub(crate) fn message(id: &str) -> NewMessage {
    NewMessage::new(id.to_owned())
        .with_id(MessageId::new(id).unwrap())
        .with_visibility_timeout(VISIBILITY)
        .with_max_attempts(1000)
}

#[async_trait]
impl Delegate for Witness {
    type Inner = Delegated<Faulty>;

    fn inner(&self) -> &Delegated<Faulty> {
        &self.inner
    }

    /// Small, so that there are several calls.
    fn limits(&self) -> Limits {
        Limits::STANDARD.with_max_batch(NonZeroUsize::new(4).expect("not zero"))
    }

    async fn enqueue(&self, queue: &QueueName, all: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        // After its ack, the same id is a new message.
        let is_old = |id: &MessageId| !all.iter().any(|message| message.id == *id);
        self.known.lock().unwrap().acked.retain(is_old);
        let call = self.inner.enqueue(queue, all);
        let answer = self.around(Operation::Enqueue, all.len(), call).await?;
        if answer.len() == all.len() {
            let ids = all.iter().map(|message| message.id.clone());
            self.known.lock().unwrap().stored.extend(ids);
        }
        Ok(answer)
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let call = self.inner.lease(queue, options);
        let answer = self.around(Operation::Lease, 0, call).await?;
        let mut known = self.known.lock().unwrap();
        for delivery in &answer {
            let receipt = delivery.receipt.to_string();
            known.ids.insert(receipt, delivery.id.clone());
        }
        Ok(answer)
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let call = self.inner.ack(queue, receipts);
        let answer = self.around(Operation::Ack, 0, call).await?;
        if answer.len() == receipts.len() {
            let mut known = self.known.lock().unwrap();
            for (receipt, _) in receipts
                .iter()
                .zip(&answer)
                .filter(|(_, one)| one.is_applied())
            {
                let id = known.ids[&receipt.to_string()].clone();
                if !known.handled.contains(&id) {
                    let problem = format!("{id} is acked and was not handled");
                    known.problems.insert(problem);
                }
                if !known.acked.insert(id.clone()) {
                    known.problems.insert(format!("{id} is acked twice"));
                }
            }
        }
        Ok(answer)
    }

    async fn change(&self, queue: &QueueName, all: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        let call = self.inner.change(queue, all);
        let answer = self.around(Operation::Change, 0, call).await?;
        let mut known = self.known.lock().unwrap();
        for change in all {
            let id = known.ids[&change.receipt.to_string()].clone();
            let dies = matches!(change.action, LeaseAction::DeadLetter { .. });
            if dies && Kind::of(&id) != Kind::Dead {
                known.problems.insert(format!("{id} is made a dead letter"));
            }
        }
        Ok(answer)
    }
}
