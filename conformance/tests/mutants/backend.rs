//! A plain backend, broken in one way or in none: the traits on top of [`State`].
//!
//! Nothing in it is fast or clever, so that what a bug does is seen in the place where it is.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use queue_api::{
    Clock, DeadLetter, DeadLetterPage, Delivery, EnqueueOutcome, Error, ErrorKind, LeaseAction,
    LeaseChange, LeaseOptions, LeaseOutcome, Limits, NewMessage, PeekedMessage, Purge, QueueAdmin,
    QueueBackend, QueueName, QueueStats, Receipt, Redrive, Result, async_trait,
};
use tokio::sync::{Notify, watch};

use crate::{
    bug::Bug,
    file::{Folder, Locked},
    given::demand,
    harness::Mutant,
    message::{Millis, to_millis, to_time},
    settle::{Action, Use},
    state::{Caller, State, refused},
};

/// What all connections to one store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bug: Option<Bug>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    /// A std mutex: no operation holds it over an await. Those that should and do not are the
    /// bugs in `torn.rs`.
    state: Mutex<State>,
    /// Where the state really is, if processes share it.
    folder: Option<Folder>,
    changed: watch::Sender<()>,
    /// In place of `changed`, for the bug that wakes one wait only.
    next_waiter: Notify,
    anybody_waits: AtomicBool,
    connections: AtomicU64,
    pub(crate) lease_calls: AtomicU64,
    pub(crate) lease_under_way: Arc<()>,
}

impl Shared {
    pub(crate) fn new(mutant: &Mutant, clock: Arc<dyn Clock>, folder: Option<Folder>) -> Self {
        let bug = mutant.bug;
        Self {
            bug,
            limits: mutant.limits.clone(),
            clock,
            folder,
            state: Mutex::new(State::new(bug, mutant.ties)),
            changed: watch::Sender::new(()),
            next_waiter: Notify::new(),
            anybody_waits: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            lease_calls: AtomicU64::new(0),
            lease_under_way: Arc::new(()),
        }
    }
}

/// One connection to a store.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) shared: Arc<Shared>,
    pub(crate) caller: Caller,
    own_changes: watch::Sender<()>,
    /// What was enqueued and has not reached the store.
    buffer: Mutex<Vec<(QueueName, Vec<NewMessage>, Millis)>>,
    /// The leases that were taken here.
    own_receipts: Mutex<Vec<Receipt>>,
}

impl Backend {
    pub(crate) fn connect(shared: Arc<Shared>) -> Self {
        Self {
            caller: Caller {
                connection: shared.connections.fetch_add(1, Ordering::Relaxed),
                receipts: AtomicU64::new(0),
            },
            shared,
            own_changes: watch::Sender::new(()),
            buffer: Mutex::default(),
            own_receipts: Mutex::default(),
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.shared.bug == Some(bug)
    }

    pub(crate) fn now(&self) -> Millis {
        to_millis(self.shared.clock.now())
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked::new(&self.shared.state, self.shared.folder.as_ref())
    }

    /// What passes between the halves of an operation that is torn in two. Some yields rather
    /// than one, so that among a few tasks there is always another that gets in between; and
    /// among processes long enough that some are killed in it.
    pub(crate) async fn window(&self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        if self.shared.folder.is_some() {
            let soon = self.shared.clock.now() + Duration::from_millis(5);
            self.shared.clock.sleep_until(soon).await;
        }
    }

    /// What comes first in every call: the queue that is meant.
    fn enter(&self, queue: &QueueName) -> Result<QueueName> {
        let buffered = std::mem::take(&mut *self.buffer.lock().expect("no holder panics"));
        for (queue, messages, at) in buffered {
            self.lock().enqueue(&queue, &messages, at)?;
        }
        match self.shared.bug {
            Some(Bug::QueueNamesIgnoreCase) => QueueName::new(&queue.as_str().to_lowercase()),
            Some(Bug::QueueNamesLoseDots) => QueueName::new(&queue.as_str().replace('.', "-")),
            Some(Bug::QueueNamesCutAt32) => {
                QueueName::new(&queue.as_str()[..queue.as_str().len().min(32)])
            }
            _ => Ok(queue.clone()),
        }
    }

    /// Tells those who wait that a call changed something, unless the bug is that it does not.
    fn tell_unless(&self, silent: Bug) {
        if self.has(silent) {
            return;
        }
        if self.has(Bug::DroppedWaitSilencesOthers)
            && !self.shared.anybody_waits.load(Ordering::SeqCst)
        {
            return;
        }
        if self.has(Bug::WaitWakesOne) {
            self.shared.next_waiter.notify_one();
        }
        self.changes().send_replace(());
    }

    fn changes(&self) -> &watch::Sender<()> {
        match self.shared.bug {
            Some(Bug::WaitHearsItselfOnly) => &self.own_changes,
            _ => &self.shared.changed,
        }
    }

    async fn settle(
        &self,
        queue: &QueueName,
        uses: Vec<Use>,
        written_back: Bug,
    ) -> Result<Vec<LeaseOutcome>> {
        let now = self.now();
        if self.has(Bug::ReceiptsOfConnection) {
            let own = self.own_receipts.lock().expect("no holder panics").clone();
            if uses.iter().any(|wanted| !own.contains(&wanted.receipt)) {
                return Ok(vec![LeaseOutcome::Lost; uses.len()]);
            }
        }
        if let Some(torn) = self.torn_settle(queue, &uses, now).await {
            return torn;
        }
        let settle = |state: &mut State| state.settle(queue, &uses, now);
        let outcomes = self.operate(queue, written_back, settle).await?;
        if self.has(Bug::LostNeverAnswers) && outcomes.contains(&LeaseOutcome::Lost) {
            pending().await
        }
        Ok(outcomes)
    }
}

#[async_trait]
impl QueueBackend for Backend {
    fn limits(&self) -> Limits {
        self.shared.limits.clone()
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        demand(&self.shared.limits, messages.len(), messages)?;
        let queue = &self.enter(queue)?;
        let now = self.now();
        let outcomes = if self.has(Bug::EnqueueBuffered) {
            let outcomes = self.lock().clone().enqueue(queue, messages, now);
            let mut buffer = self.buffer.lock().expect("no holder panics");
            buffer.push((queue.clone(), messages.to_vec(), now));
            outcomes
        } else if let Some(torn) = self.torn_enqueue(queue, messages, now).await {
            torn
        } else {
            let enqueue = |state: &mut State| state.enqueue(queue, messages, now);
            self.operate(queue, Bug::EnqueueWritesBack, enqueue).await
        };
        self.tell_unless(Bug::WaitMissesEnqueue);
        outcomes
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let asked = options.max_messages();
        demand(&self.shared.limits, asked, std::slice::from_ref(options))?;
        let queue = &self.enter(queue)?;
        let now = self.now();
        self.lock().expect_used(queue, Bug::UnusedQueueIsAnError)?;
        let deliveries = match self.torn_lease(queue, options, now).await {
            Some(torn) => torn,
            None => {
                let lease = |state: &mut State| {
                    let met = state.met(queue, options, now, &self.caller);
                    state.lease(queue, &met, options, now, &self.caller)
                };
                self.operate(queue, Bug::LeaseWritesBack, lease).await
            }
        };
        if deliveries.is_empty() && self.has(Bug::EmptyLeaseIsAnError) {
            return Err(refused("lease", "no messages"));
        }
        let mut own = self.own_receipts.lock().expect("no holder panics");
        own.extend(deliveries.iter().map(|delivery| delivery.receipt.clone()));
        Ok(deliveries)
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        demand(&self.shared.limits, receipts.len(), receipts)?;
        let queue = &self.enter(queue)?;
        let mut receipts = receipts.to_vec();
        if receipts.is_empty() && self.has(Bug::EmptyAckIsForAll) {
            let state = self.lock();
            let leases = state
                .messages(queue)
                .iter()
                .filter_map(|m| m.lease.as_ref());
            receipts.extend(leases.map(|lease| lease.receipt.clone()));
        }
        let uses = receipts.into_iter().map(|receipt| Use {
            receipt,
            action: Action::Ack,
        });
        self.settle(queue, uses.collect(), Bug::AckWritesBack).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        demand(&self.shared.limits, changes.len(), changes)?;
        let queue = &self.enter(queue)?;
        let uses = changes.iter().map(|change| Use {
            receipt: change.receipt.clone(),
            action: Action::Change(change.action.clone()),
        });
        let outcomes = self
            .settle(queue, uses.collect(), Bug::ChangeWritesBack)
            .await;
        let extends = |change: &LeaseChange| matches!(change.action, LeaseAction::Extend(_));
        let silent = if changes.iter().any(extends) {
            Bug::WaitMissesExtend
        } else {
            Bug::WaitMissesNack
        };
        self.tell_unless(silent);
        outcomes
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let queue = &self.enter(queue)?;
        self.lock()
            .expect_used(queue, Bug::WaitOnUnusedQueueFails)?;
        let deadline = self.now().saturating_add(at_most.as_millis() as Millis);
        let _waiting = self.has(Bug::DroppedWaitSilencesOthers).then(|| {
            self.shared.anybody_waits.store(true, Ordering::SeqCst);
            SignOff(&self.shared.anybody_waits)
        });
        let mut changed = self.changes().subscribe();
        loop {
            let now = self.now();
            let due = self.lock().next_due(queue, now);
            let limit = if self.has(Bug::WaitIgnoresLimit) {
                None
            } else {
                Some(deadline)
            };
            let until = due.into_iter().chain(limit).min();
            if until.is_some_and(|until| until <= now) {
                return match due {
                    None if self.has(Bug::WaitLimitIsAnError) => too_late(),
                    Some(due) if due > now && self.has(Bug::WaitLimitIsAnError) => too_late(),
                    _ => Ok(()),
                };
            }
            let alarm = async {
                match until {
                    Some(until) => self.shared.clock.sleep_until(to_time(until)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.shared.next_waiter.notified(), if self.has(Bug::WaitWakesOne) => {}
                _ = changed.changed(), if !self.has(Bug::WaitWakesOne) => {}
                () = alarm => {}
            }
        }
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let queue = &self.enter(queue)?;
        let state = self.lock();
        state.expect_used(queue, Bug::UnusedQueueIsAnError)?;
        Ok(state.stats(queue, self.now()))
    }
}

fn too_late() -> Result<()> {
    Err(Error::new(ErrorKind::TimedOut, "wait", "nothing came"))
}

/// Says that nobody waits any more, whether that is true or not.
struct SignOff<'a>(&'a AtomicBool);

impl Drop for SignOff<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[async_trait]
impl QueueAdmin for Backend {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        let queue = &self.enter(queue)?;
        Ok(self.lock().peek(queue, max, self.now()))
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        let queue = &self.enter(queue)?;
        self.lock()
            .expect_used(queue, Bug::AdminOfUnusedQueueFails)?;
        Ok(self.lock().purge(queue, what, self.now()))
    }

    async fn dead_letters(
        &self,
        queue: &QueueName,
        page: &DeadLetterPage,
    ) -> Result<Vec<DeadLetter>> {
        let queue = &self.enter(queue)?;
        Ok(self.lock().dead_letters(queue, page))
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        let queue = &self.enter(queue)?;
        self.torn_redrive(queue).await;
        let redriven = self.lock().redrive(queue, which, self.now());
        self.tell_unless(Bug::WaitMissesRedrive);
        Ok(redriven)
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        let queue = &self.enter(queue)?;
        self.lock().delete(queue);
        Ok(())
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        Ok(self.lock().names())
    }
}
