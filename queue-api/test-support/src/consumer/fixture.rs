//! A fresh store for one check.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use queue_api::{
    Clock, DeadLetter, Delivery, LeaseOptions, MessageId, NewMessage, PageOptions, Purge, Queue,
    QueueAdmin, QueueBackend, QueueStats,
    consumer::{Lease, ListenOptions, Listener},
};
use tokio::time::Instant;

use crate::{Delegated, Faulty};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// The visibility timeout of the messages of the checks.
pub(super) const VISIBILITY: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Fixture {
    /// The queue that the consumer under test uses.
    pub(super) queue: Queue,
    /// Injects faults into `queue`.
    pub(super) faulty: Arc<Delegated<Faulty>>,
    /// The same queue without faults, as another process uses it.
    pub(super) elsewhere: Queue,
    pub(super) admin: Arc<dyn QueueAdmin>,
    pub(super) clock: Arc<dyn Clock>,
    started: Instant,
}

pub(super) fn msg(id: &str) -> NewMessage {
    NewMessage::new(id.to_owned())
        .with_id(MessageId::new(id).unwrap())
        .with_visibility_timeout(VISIBILITY)
}

impl Fixture {
    pub(super) fn new(
        backend: Arc<dyn QueueBackend>,
        admin: Arc<dyn QueueAdmin>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let faulty = Faulty::new(backend.clone());
        Self {
            queue: Queue::new(faulty.clone(), "q").unwrap(),
            faulty,
            elsewhere: Queue::new(backend, "q").unwrap(),
            admin,
            clock,
            started: Instant::now(),
        }
    }

    pub(super) async fn store(&self, messages: &[NewMessage]) {
        self.elsewhere.enqueue_batch(messages).await.unwrap();
    }

    /// Stores messages with the ids `0`, `1`, … and their ids as payloads.
    pub(super) async fn store_many(&self, count: usize) {
        let messages: Vec<_> = (0..count).map(|n| msg(&n.to_string())).collect();
        self.store(&messages).await;
    }

    pub(super) fn listen(&self, concurrency: usize) -> Listener {
        self.listen_with(ListenOptions::new(concurrency))
    }

    pub(super) fn listen_with(&self, options: ListenOptions) -> Listener {
        let options = options.with_clock(self.clock.clone());
        self.queue.listen(options).unwrap()
    }

    /// A lease of the only message in the queue, and the listener that renews it.
    pub(super) async fn one_lease(&self) -> (Listener, Lease) {
        let mut listener = self.listen(1);
        let lease = listener.next().await.expect("the listener was not stopped");
        (listener, lease)
    }

    /// Lets time pass, and runs everything that falls due meanwhile.
    pub(super) async fn advance(&self, time: Duration) {
        let until = self.clock.now() + time;
        self.clock.sleep_until(until).await;
        self.run_tasks().await;
    }

    /// Runs everything that can run now. The pause is 1 ms of virtual time, which waits for
    /// blocking threads.
    pub(super) async fn run_tasks(&self) {
        let until = self.clock.now() + Duration::from_millis(1);
        self.clock.sleep_until(until).await;
    }

    /// Time since the check began, in whole seconds.
    pub(super) fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(super) async fn stats(&self) -> QueueStats {
        self.elsewhere.stats().await.unwrap()
    }

    /// Leases one message as another process.
    pub(super) async fn lease_elsewhere(&self) -> Option<Delivery> {
        self.elsewhere.lease().await.unwrap()
    }

    /// The attempts of all ready messages by id. It leases them.
    pub(super) async fn attempts_elsewhere(&self) -> BTreeMap<String, u32> {
        let options = LeaseOptions::new(1000);
        let all = self.elsewhere.lease_batch(&options).await.unwrap();
        all.into_iter()
            .map(|delivery| (delivery.id.to_string(), delivery.attempt))
            .collect()
    }

    /// Empties the queue.
    pub(super) async fn purge(&self) {
        for what in [Purge::Live, Purge::Dead] {
            self.admin.purge(self.queue.name(), what).await.unwrap();
        }
    }

    pub(super) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let page = PageOptions::new(100);
        let queue = self.queue.name();
        self.admin.dead_letters(queue, &page).await.unwrap().letters
    }
}
