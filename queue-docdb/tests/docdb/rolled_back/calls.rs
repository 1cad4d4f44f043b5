//! The calls whose effect is undone, and what must be true after their answers.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::{
    Client,
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};
use queue_api::{
    Delivery, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome, ManualClock, Purge, Queue,
    QueueAdmin, QueueStats, QueueTransaction, Receipt, Redrive,
};
use queue_docdb::DocDbBackend;
use tokio::sync::Notify;

use crate::fixture::{MINUTE, id, message, name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Enqueue,
    Lease,
    Ack,
    AckBatch,
    Extend,
    Nack,
    Release,
    DeadLetter,
    Purge,
    PurgeDead,
    Redrive,
    RedriveIds,
    DeleteQueue,
    Commit,
}

pub(crate) const CALLS: [Call; 14] = [
    Call::Enqueue,
    Call::Lease,
    Call::Ack,
    Call::AckBatch,
    Call::Extend,
    Call::Nack,
    Call::Release,
    Call::DeadLetter,
    Call::Purge,
    Call::PurgeDead,
    Call::Redrive,
    Call::RedriveIds,
    Call::DeleteQueue,
    Call::Commit,
];

const IDS: [&str; 3] = ["a", "b", "c"];

/// A call on its own database.
pub(crate) struct Case {
    call: Call,
    /// The same call was made before and dropped, when its effect was on the primary alone.
    pub(crate) is_repeated: bool,
    /// Also the name of its connections.
    pub(crate) database: String,
    /// Notified of each answer to a command.
    pub(crate) answered: Arc<Notify>,
    clock: Arc<ManualClock>,
    backend: DocDbBackend,
    queue: Queue,
    receipts: Vec<Receipt>,
    /// What the call has leased.
    leased: Mutex<Vec<Delivery>>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = if self.is_repeated { " again" } else { "" };
        write!(f, "{:?}{again}", self.call)
    }
}

impl Case {
    /// Prepares a queue of three messages, on the application's own client.
    pub(crate) async fn prepare(uri: &str, call: Call, is_repeated: bool) -> Self {
        let database = format!("{call:?}{}", u8::from(is_repeated));
        let answered = Arc::new(Notify::new());
        let notify = answered.clone();
        let uri = format!("{uri}&w=1&retryWrites=false&appName={database}");
        let mut options = ClientOptions::parse(uri).await.unwrap();
        options.command_event_handler = Some(EventHandler::callback(move |event| {
            if !matches!(event, CommandEvent::Started(_)) {
                notify.notify_one();
            }
        }));
        let client = Client::with_options(options).unwrap();
        let clock = Arc::new(ManualClock::new());
        let backend = DocDbBackend::from_database(client.database(&database))
            .clock(clock.clone())
            // On a busy machine it takes a while until all calls wait for a majority.
            .operation_timeout(10 * MINUTE)
            .connect()
            .await
            .unwrap();
        let queue = Queue::new(Arc::new(backend.clone()), "mail").unwrap();
        let mut case = Self {
            call,
            is_repeated,
            database,
            answered,
            clock,
            backend,
            queue,
            receipts: Vec::new(),
            leased: Mutex::default(),
        };
        case.fill().await;
        case
    }

    pub(crate) async fn forget_answers(&self) {
        let _ = tokio::time::timeout(Duration::ZERO, self.answered.notified()).await;
    }

    async fn fill(&mut self) {
        if matches!(self.call, Call::Enqueue | Call::Commit) {
            return self.backend.prepare(&name()).await.unwrap();
        }
        self.queue.enqueue_batch(&IDS.map(message)).await.unwrap();
        if matches!(self.call, Call::Lease | Call::Purge | Call::DeleteQueue) {
            return;
        }
        let deliveries = self.queue.lease_batch(&LeaseOptions::new(3)).await.unwrap();
        self.receipts = deliveries.into_iter().map(|each| each.receipt).collect();
        let are_dead = [Call::PurgeDead, Call::Redrive, Call::RedriveIds];
        if are_dead.contains(&self.call) {
            let letter = |receipt: Receipt| LeaseChange::dead_letter(receipt, "no");
            let letters: Vec<_> = self.receipts.drain(..).map(letter).collect();
            self.queue.change_batch(&letters).await.unwrap();
        }
    }

    async fn change(&self, change: impl FnMut(Receipt) -> LeaseChange) -> Result<u64, Error> {
        let changes: Vec<_> = self.receipts.iter().cloned().map(change).collect();
        Ok(settled(&self.queue.change_batch(&changes).await?))
    }

    /// Makes the call, and returns the number of messages in its answer.
    pub(crate) async fn make(&self) -> Result<u64, Error> {
        let (queue, backend) = (&self.queue, &self.backend);
        match self.call {
            Call::Enqueue => {
                let outcomes = queue.enqueue_batch(&IDS.map(message)).await?;
                Ok(outcomes.len() as u64)
            }
            Call::Lease => {
                let leased = queue.lease_batch(&LeaseOptions::new(3)).await?;
                let count = leased.len() as u64;
                self.leased.lock().unwrap().extend(leased);
                Ok(count)
            }
            Call::Ack => Ok(settled(&[queue.ack(&self.receipts[0]).await?])),
            Call::AckBatch => Ok(settled(&queue.ack_batch(&self.receipts).await?)),
            Call::Extend => self.change(|it| LeaseChange::extend(it, 60 * MINUTE)).await,
            Call::Nack => self.change(|it| LeaseChange::nack(it, MINUTE)).await,
            Call::Release => self.change(LeaseChange::release).await,
            Call::DeadLetter => self.change(|it| LeaseChange::dead_letter(it, "no")).await,
            Call::Purge => backend.purge(&name(), Purge::Live).await,
            Call::PurgeDead => backend.purge(&name(), Purge::Dead).await,
            Call::Redrive => backend.redrive(&name(), &Redrive::All).await,
            Call::RedriveIds => {
                let ids = Redrive::Ids(IDS.map(id).to_vec());
                backend.redrive(&name(), &ids).await
            }
            Call::DeleteQueue => backend.delete_queue(&name()).await.map(|()| 3),
            Call::Commit => self.commit().await,
        }
    }

    async fn commit(&self) -> Result<u64, Error> {
        let mut session = self.backend.start_session().await?;
        session.start_transaction().await.unwrap();
        let mut queues = self.backend.in_transaction(&mut session);
        queues.enqueue(&name(), &IDS.map(message)).await?;
        let committed = session.commit_transaction().await;
        // As an application does: it does not know what the commit did, and begins again.
        let failed = |error: mongodb::error::Error| {
            Error::new(ErrorKind::Unavailable, "commit", "failed").with_source(error)
        };
        committed.map(|()| 3).map_err(failed)
    }

    /// Checks that the answer is true of what the queue holds now.
    pub(crate) async fn check(&self, told: u64) {
        let leased = std::mem::take(&mut *self.leased.lock().unwrap());
        if self.call == Call::Extend {
            self.clock.advance(30 * MINUTE);
        }
        let now = self.queue.stats().await.unwrap();
        let is_true = match self.call {
            // It looked, found nothing and wrote nothing, as a read does.
            Call::Redrive | Call::RedriveIds if told == 0 => self.is_repeated,
            Call::Enqueue | Call::Commit | Call::Redrive | Call::RedriveIds | Call::Release => {
                now.ready == 3
            }
            Call::Lease => now.leased >= told,
            Call::Ack => now.leased == 2,
            Call::Extend => now.leased == 3,
            Call::Nack => now.delayed == 3,
            Call::DeadLetter => now.dead == 3,
            Call::AckBatch | Call::Purge | Call::PurgeDead | Call::DeleteQueue => {
                now == QueueStats::default()
            }
        };
        // After a dropped call, a call of an administrator may find nothing left to do.
        let is_count_true = self.is_repeated || told == if self.call == Call::Ack { 1 } else { 3 };
        assert!(is_true && is_count_true, "{self:?}: {told} and {now:?}");
        for delivery in leased {
            let acked = self.queue.ack(&delivery.receipt).await.unwrap();
            assert_eq!(acked, LeaseOutcome::Applied, "{self:?}: {delivery:?}");
        }
    }
}

/// Whatever the outcome, the receipts are settled: `Lost` means by an earlier call.
fn settled(outcomes: &[LeaseOutcome]) -> u64 {
    outcomes.len() as u64
}
