//! A fresh store for one check.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use queue_api::{
    Clock, DeadLetter, DeadLetterPage, Delivery, LeaseOptions, MessageId, NewMessage, Queue,
    QueueAdmin, QueueBackend, QueueStats,
    consumer::{Lease, ListenOptions, Listener},
};
use tokio::time::Instant;

use super::faulty::Faulty;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The visibility timeout of the messages of the checks.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(30);

pub(crate) struct Fixture {
    /// The queue as the consumer sees it: with faults, where the check makes some.
    pub(crate) queue: Queue,
    pub(crate) store: Arc<Faulty>,
    /// The same queue as everybody else sees it.
    pub(crate) elsewhere: Queue,
    pub(crate) admin: Arc<dyn QueueAdmin>,
    pub(crate) clock: Arc<dyn Clock>,
    started: Instant,
}

pub(crate) fn msg(id: &str) -> NewMessage {
    NewMessage::new(id.to_owned())
        .with_id(MessageId::new(id).unwrap())
        .with_visibility_timeout(VISIBILITY)
}

impl Fixture {
    pub(crate) fn new(
        backend: Arc<dyn QueueBackend>,
        admin: Arc<dyn QueueAdmin>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let store = Faulty::new(backend.clone());
        Self {
            queue: Queue::new(store.clone(), "q").unwrap(),
            store,
            elsewhere: Queue::new(backend, "q").unwrap(),
            admin,
            clock,
            started: Instant::now(),
        }
    }

    pub(crate) async fn store(&self, messages: &[NewMessage]) {
        self.elsewhere.enqueue_batch(messages).await.unwrap();
    }

    /// Stores messages with the ids `0`, `1`, … and their ids as payloads.
    pub(crate) async fn store_many(&self, count: usize) {
        let messages: Vec<_> = (0..count).map(|n| msg(&n.to_string())).collect();
        self.store(&messages).await;
    }

    pub(crate) fn listen(&self, concurrency: usize) -> Listener {
        self.listen_with(ListenOptions::new(concurrency))
    }

    pub(crate) fn listen_with(&self, options: ListenOptions) -> Listener {
        let options = options.with_clock(self.clock.clone());
        self.queue.listen(options).unwrap()
    }

    /// A lease of the one message that the queue holds, and what must live for it.
    pub(crate) async fn one_lease(&self) -> (Listener, Lease) {
        let mut listener = self.listen(1);
        let lease = listener.next().await.expect("not stopped");
        (listener, lease)
    }

    /// Lets time pass, and everything happen that falls due meanwhile.
    pub(crate) async fn pass(&self, time: Duration) {
        let until = self.clock.now() + time;
        self.clock.sleep_until(until).await;
        self.settle().await;
    }

    /// Lets everything happen that can happen now. A pause of a millisecond, because blocking
    /// threads hold virtual time back until they have done their work.
    pub(crate) async fn settle(&self) {
        let until = self.clock.now() + Duration::from_millis(1);
        self.clock.sleep_until(until).await;
    }

    /// How much time has passed, in whole seconds.
    pub(crate) fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(crate) async fn stats(&self) -> QueueStats {
        self.elsewhere.stats().await.unwrap()
    }

    /// What somebody else is given now.
    pub(crate) async fn lease_elsewhere(&self) -> Option<Delivery> {
        self.elsewhere.lease().await.unwrap()
    }

    /// The attempts of all ready messages, found by leasing them.
    pub(crate) async fn attempts_elsewhere(&self) -> BTreeMap<String, u32> {
        let options = LeaseOptions::new(1000);
        let all = self.elsewhere.lease_batch(&options).await.unwrap();
        all.into_iter()
            .map(|delivery| (delivery.id.to_string(), delivery.attempt))
            .collect()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let page = DeadLetterPage::new(100);
        let queue = self.queue.name();
        self.admin.dead_letters(queue, &page).await.unwrap()
    }
}
