//! The fixture of a check: a fresh store, a connection to it, and a clock.
//!
//! Its calls are those of the trait on one queue. Two things keep checks short: an error panics,
//! and durations are in milliseconds. A panic is reported at the check's own line, see
//! [`called_from_here`].

use std::{future::Future, ops::Deref, sync::Arc, time::Duration, time::SystemTime};

use queue_api::{
    Clock, Delivery, EnqueueOutcome, LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome,
    MessageId, NewMessage, PeekedMessage, Purge, Queue, QueueAdmin, QueueBackend, QueueName,
    QueueStats, Receipt, Redrive,
};
use tokio::time::Instant;

use crate::{
    harness::{Connection, Store, TestTime},
    panic_location::called_from_here,
};

mod pages;

#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    time: TestTime,
    queue: OneQueue,
    began: Instant,
}

/// The calls of one connection on one queue.
#[derive(Clone, Debug)]
pub(crate) struct OneQueue {
    pub(crate) connection: Connection,
    pub(crate) name: QueueName,
    store: Arc<dyn Store>,
    /// That of the whole check.
    timeout: Duration,
}

impl Fixture {
    /// Connects. An error is the harness's fault, not the backend's.
    pub(crate) async fn new(
        store: Arc<dyn Store>,
        time: TestTime,
        timeout: Duration,
    ) -> Result<Self, String> {
        let connected = store.connect().await;
        let connection = connected.map_err(|why| format!("the harness cannot connect: {why}"))?;
        let limits = connection.backend.limits();
        let enough = limits.max_batch.get() >= 10
            && limits.max_payload_bytes >= 100_000
            && limits.max_header_bytes >= 1000
            && limits.max_visibility_timeout >= Duration::from_secs(7200)
            && limits.max_delay >= Duration::from_secs(7200);
        if !enough {
            return Err(format!(
                "the limits are too small: {limits:?}; see \"Limits\" in the suite's README"
            ));
        }
        let queue = OneQueue {
            connection,
            name: name("work"),
            store,
            timeout,
        };
        Ok(Self {
            time,
            queue,
            began: Instant::now(),
        })
    }

    /// The same store over a new connection, as another process has it.
    #[track_caller]
    pub(crate) fn reconnect(&self) -> impl Future<Output = Self> {
        called_from_here(async move {
            let mut again = self.clone();
            again.queue.connection = self.connect().await;
            again
        })
    }

    /// The same with a wrapper around the backend of its connection.
    pub(crate) fn wrapped(
        mut self,
        wrap: impl FnOnce(Arc<dyn QueueBackend>) -> Arc<dyn QueueBackend>,
    ) -> Self {
        self.queue.connection = self.queue.connection.wrapped(wrap);
        self
    }

    /// Another queue over the same connection.
    pub(crate) fn other_queue(&self, other: &str) -> OneQueue {
        OneQueue {
            name: name(other),
            ..self.queue.clone()
        }
    }

    /// Lets time pass: moves the manual clock, or waits in a check in real time.
    #[track_caller]
    pub(crate) fn pass(&self, millis: u64) -> impl Future<Output = ()> {
        called_from_here(async move {
            let by = Duration::from_millis(millis);
            match &self.time {
                TestTime::Manual(clock) => clock.advance(by),
                // Checks in real time exist to let real time pass.
                #[allow(clippy::disallowed_methods)]
                TestTime::Real => tokio::time::sleep(by).await,
            }
        })
    }

    /// That of the whole check.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether nearly all of the check's time is left, so that it can be more thorough.
    pub(crate) fn has_time(&self) -> bool {
        self.began.elapsed() < self.timeout / 10
    }

    /// A timeout for a task that waits for the work of others.
    pub(crate) fn idle_timeout(&self) -> IdleTimeout {
        IdleTimeout {
            queue: self.queue.clone(),
            // Shorter than that of the whole check, which cannot say what is missing.
            limit: self.timeout / 3,
            since: Instant::now(),
        }
    }

    /// The time by the manual clock.
    pub(crate) fn now(&self) -> SystemTime {
        match &self.time {
            TestTime::Manual(clock) => clock.now(),
            TestTime::Real => panic!("in real time the backend's time is not known"),
        }
    }
}

/// A timeout that starts again with each success.
pub(crate) struct IdleTimeout {
    queue: OneQueue,
    limit: Duration,
    since: Instant,
}

impl IdleTimeout {
    pub(crate) fn reset(&mut self) {
        self.since = Instant::now();
    }

    /// Lets other tasks run. Panics after the timeout and says what was `missing`.
    #[track_caller]
    pub(crate) fn check(&self, missing: &str) -> impl Future<Output = ()> {
        called_from_here(async move {
            let limit = self.limit;
            if self.since.elapsed() > limit {
                let stats = self.queue.stats().await;
                panic!("{missing} for {limit:?}: {stats:?}");
            }
            tokio::task::yield_now().await;
        })
    }
}

impl Deref for Fixture {
    type Target = OneQueue;

    fn deref(&self) -> &OneQueue {
        &self.queue
    }
}

/// Makes a call for each part of a batch within the limits. An empty batch is one call.
macro_rules! in_chunks {
    ($queue:expr, $call:ident, $batch:expr) => {{
        let (backend, batch) = ($queue.backend(), $batch);
        let chunks = batch.chunks(backend.limits().max_batch.get());
        let mut outcomes = Vec::new();
        for chunk in chunks.chain(batch.is_empty().then_some(batch)) {
            let answer = backend.$call(&$queue.name, chunk).await;
            let answer = answer.expect(concat!(stringify!($call), " succeeds"));
            assert_eq!(answer.len(), chunk.len(), "one outcome for each part");
            outcomes.extend(answer);
        }
        outcomes
    }};
}

impl OneQueue {
    pub(crate) fn backend(&self) -> &dyn QueueBackend {
        &*self.connection.backend
    }

    /// The handle that applications use.
    pub(crate) fn handle(&self) -> Queue {
        let backend = self.connection.backend.clone();
        Queue::new(backend, &self.name).expect("the name is valid")
    }

    async fn connect(&self) -> Connection {
        self.store.connect().await.expect("the harness connects")
    }

    /// Runs a `wait` that has a reason to end. If it does not, the check fails before its timeout
    /// and says what the queue holds.
    #[track_caller]
    pub(crate) fn wait_ends<T>(&self, wait: impl Future<Output = T>) -> impl Future<Output = T> {
        called_from_here(async move {
            tokio::select! {
                biased;
                ended = wait => ended,
                (passed, stats) = self.time_to_wake() => {
                    let name = &self.name;
                    panic!("the wait on queue {name} did not end within {passed:?}: {stats:?}")
                }
            }
        })
    }

    /// The time in which a wait ends, and what the queue holds then. Long enough for a backend that
    /// polls. A slow store has more time, because it must also answer several times.
    #[allow(clippy::disallowed_methods)] // a backend that hangs does so in real time
    async fn time_to_wake(&self) -> (Duration, QueueStats) {
        const ANSWERS: usize = 20;
        let began = Instant::now();
        tokio::time::sleep(self.timeout / 6).await;
        let mut elsewhere = self.clone();
        elsewhere.connection = self.connect().await;
        let mut stats = elsewhere.stats().await;
        for _ in 1..ANSWERS {
            stats = elsewhere.stats().await;
        }
        (began.elapsed(), stats)
    }

    pub(crate) fn has_admin(&self) -> bool {
        self.connection.admin.is_some()
    }

    #[track_caller]
    pub(crate) fn admin(&self) -> &dyn QueueAdmin {
        let admin = self.connection.admin.as_deref();
        admin.expect("a harness that offers QueueAdmin connects with it")
    }

    /// Enqueues in batches within the backend's limits, like all calls here.
    #[track_caller]
    pub(crate) fn enqueue(
        &self,
        messages: &[NewMessage],
    ) -> impl Future<Output = Vec<EnqueueOutcome>> {
        called_from_here(async move { in_chunks!(self, enqueue, messages) })
    }

    /// Stores messages whose ids are new.
    #[track_caller]
    pub(crate) fn store(&self, messages: &[NewMessage]) -> impl Future<Output = ()> {
        called_from_here(async move {
            let outcomes = self.enqueue(messages).await;
            let all_new = outcomes
                .iter()
                .all(|outcome| *outcome == EnqueueOutcome::Stored);
            assert!(all_new, "every id is new: {outcomes:?}");
        })
    }

    /// Stores messages and makes them dead letters. No message is ready before.
    #[track_caller]
    pub(crate) fn store_dead(&self, messages: &[NewMessage]) -> impl Future<Output = ()> {
        called_from_here(async move {
            self.store(messages).await;
            let deliveries = self.lease(messages.len()).await.into_iter();
            let changes = deliveries.map(|each| LeaseChange::dead_letter(each.receipt, "no"));
            let outcomes = self.change_all(&changes.collect::<Vec<_>>()).await;
            assert_eq!(outcomes, vec![LeaseOutcome::Applied; messages.len()]);
        })
    }

    /// Stores one message in each state. Its id is the name of the state.
    #[track_caller]
    pub(crate) fn fill_every_state(&self) -> impl Future<Output = ()> {
        called_from_here(async move {
            self.store_dead(&[msg("dead")]).await;
            self.store(&[msg("leased")]).await;
            self.lease_one().await;
            let delayed = msg("delayed").with_delay(Duration::from_secs(60));
            self.store(&[msg("ready"), delayed]).await;
        })
    }

    #[track_caller]
    pub(crate) fn lease(&self, max: usize) -> impl Future<Output = Vec<Delivery>> {
        called_from_here(async move { self.lease_with(&LeaseOptions::new(max)).await })
    }

    #[track_caller]
    pub(crate) fn lease_for(&self, max: usize, millis: u64) -> impl Future<Output = Vec<Delivery>> {
        called_from_here(async move {
            let timeout = Duration::from_millis(millis);
            self.lease_with(&LeaseOptions::new(max).with_visibility_timeout(timeout))
                .await
        })
    }

    #[track_caller]
    pub(crate) fn lease_with(&self, options: &LeaseOptions) -> impl Future<Output = Vec<Delivery>> {
        called_from_here(async move {
            let (max, most) = (
                options.max_messages(),
                self.backend().limits().max_batch.get(),
            );
            let mut deliveries = Vec::new();
            loop {
                let asked = (max - deliveries.len()).min(most);
                let chunk = options.clone().with_max_messages(asked);
                let leased = self.backend().lease(&self.name, &chunk).await;
                let leased = leased.expect("lease succeeds");
                let count = leased.len();
                assert!(count <= asked, "L4: asked for {asked}, got {count}");
                let all = count < asked;
                deliveries.extend(leased);
                if all || deliveries.len() == max {
                    return deliveries;
                }
            }
        })
    }

    /// Leases one message. One must be ready.
    #[track_caller]
    pub(crate) fn lease_one(&self) -> impl Future<Output = Delivery> {
        called_from_here(async move { self.lease(1).await.pop().expect("a message is ready") })
    }

    /// Asserts that no message is ready, and says `why`.
    #[track_caller]
    pub(crate) fn expect_none_ready(&self, why: &str) -> impl Future<Output = ()> {
        called_from_here(async move {
            let deliveries = self.lease(10).await;
            assert!(
                deliveries.is_empty(),
                "no message is ready ({why}), but a lease returned {deliveries:?}"
            );
        })
    }

    #[track_caller]
    pub(crate) fn ack_all(&self, receipts: &[Receipt]) -> impl Future<Output = Vec<LeaseOutcome>> {
        called_from_here(async move { in_chunks!(self, ack, receipts) })
    }

    #[track_caller]
    pub(crate) fn ack(&self, receipt: &Receipt) -> impl Future<Output = LeaseOutcome> {
        called_from_here(async move { self.ack_all(std::slice::from_ref(receipt)).await[0] })
    }

    #[track_caller]
    pub(crate) fn change_all(
        &self,
        changes: &[LeaseChange],
    ) -> impl Future<Output = Vec<LeaseOutcome>> {
        called_from_here(async move { in_chunks!(self, change, changes) })
    }

    #[track_caller]
    pub(crate) fn change(
        &self,
        receipt: &Receipt,
        action: LeaseAction,
    ) -> impl Future<Output = LeaseOutcome> {
        called_from_here(async move {
            let change = LeaseChange {
                receipt: receipt.clone(),
                action,
            };
            self.change_all(&[change]).await[0]
        })
    }

    #[track_caller]
    pub(crate) fn stats(&self) -> impl Future<Output = QueueStats> {
        called_from_here(async move {
            let stats = self.backend().stats(&self.name).await;
            stats.expect("stats succeeds")
        })
    }

    #[track_caller]
    pub(crate) fn peek(&self, max: usize) -> impl Future<Output = Vec<PeekedMessage>> {
        called_from_here(async move {
            let seen = self.admin().peek(&self.name, max).await;
            seen.expect("peek succeeds")
        })
    }

    #[track_caller]
    pub(crate) fn purge(&self, what: Purge) -> impl Future<Output = u64> {
        called_from_here(async move {
            let purged = self.admin().purge(&self.name, what).await;
            purged.expect("purge succeeds")
        })
    }

    #[track_caller]
    pub(crate) fn redrive(&self, which: &Redrive) -> impl Future<Output = u64> {
        called_from_here(async move {
            let redriven = self.admin().redrive(&self.name, which).await;
            redriven.expect("redrive succeeds")
        })
    }

    /// Asserts that the list of queues is in order and has these, and that others in it are empty.
    #[track_caller]
    pub(crate) fn expect_queues(&self, expected: &[&str]) -> impl Future<Output = ()> {
        called_from_here(async move {
            let listed = self.admin().list_queues().await;
            let listed = listed.expect("list_queues succeeds");
            let is_in_order = listed.is_sorted_by(|one, next| one < next);
            assert!(is_in_order, "not in order of name: {listed:?}");
            let (known, others): (Vec<_>, Vec<_>) = listed
                .into_iter()
                .partition(|name| expected.contains(&name.as_str()));
            let known: Vec<_> = known.iter().map(QueueName::as_str).collect();
            assert_eq!(known, expected, "queues that contain messages");
            for name in others {
                let other = Self {
                    name,
                    ..self.clone()
                };
                let stats = other.stats().await;
                assert_eq!(stats, QueueStats::default(), "{}", other.name);
            }
        })
    }

    #[track_caller]
    pub(crate) fn delete(&self) -> impl Future<Output = ()> {
        called_from_here(async move {
            let deleted = self.admin().delete_queue(&self.name).await;
            deleted.expect("delete_queue succeeds");
        })
    }
}

/// A message with its id as payload and a visibility timeout of 10 seconds.
pub(crate) fn msg(id: &str) -> NewMessage {
    NewMessage::new(id.to_owned())
        .with_id(id_of(id))
        .with_visibility_timeout(Duration::from_secs(10))
}

pub(crate) fn id_of(id: &str) -> MessageId {
    MessageId::new(id).expect("the suite's ids are valid")
}

pub(crate) fn name(queue: &str) -> QueueName {
    QueueName::new(queue).expect("the suite's queue names are valid")
}

pub(crate) fn extend(millis: u64) -> LeaseAction {
    LeaseAction::Extend(Duration::from_millis(millis))
}

pub(crate) fn nack(millis: u64) -> LeaseAction {
    LeaseAction::Nack {
        delay: Duration::from_millis(millis),
    }
}

pub(crate) fn dead_letter(reason: &str) -> LeaseAction {
    LeaseAction::DeadLetter {
        reason: reason.to_owned(),
    }
}

/// The receipts of deliveries, in order.
pub(crate) fn receipts(deliveries: Vec<Delivery>) -> Vec<Receipt> {
    deliveries.into_iter().map(|d| d.receipt).collect()
}

/// The ids of deliveries, in order.
pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .map(|delivery| delivery.id.as_str())
        .collect()
}

pub(crate) fn sorted_ids(deliveries: &[Delivery]) -> Vec<&str> {
    let mut ids = ids(deliveries);
    ids.sort_unstable();
    ids
}
