//! What was told stays true when a failover takes back what no majority had.

use std::{sync::Arc, time::Duration};

use mongodb::{
    Client,
    event::{EventHandler, command::CommandEvent},
};
use mongodb_test_server::{MongoReplicaSet, ReplicaSetOptions};
use queue_api::{
    EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, ManualClock, Purge, Queue, QueueAdmin,
    QueueStats, Receipt, Redrive,
};
use queue_docdb::DocDbBackend;
use tokio::sync::Notify;

use crate::fixture::{MINUTE, message, name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Enqueue,
    Ack,
    AckBatch,
    Nack,
    Purge,
    PurgeDead,
    Redrive,
    Commit,
}

const CALLS: [(Call, &str); 8] = [
    (Call::Purge, "delete"),
    (Call::PurgeDead, "delete"),
    (Call::Redrive, "update"),
    (Call::Commit, "commitTransaction"),
    (Call::Enqueue, "insert"),
    (Call::Ack, "delete"),
    (Call::AckBatch, "delete"),
    (Call::Nack, "update"),
];

const IDS: [&str; 3] = ["a", "b", "c"];

/// A queue of three, and what is told of it.
struct Case {
    call: Call,
    backend: DocDbBackend,
    queue: Queue,
    receipts: Vec<Receipt>,
}

impl Case {
    async fn prepare(call: Call, backend: DocDbBackend) -> Self {
        let queue = Queue::new(Arc::new(backend.clone()), "mail").unwrap();
        let mut receipts = Vec::new();
        if matches!(call, Call::Enqueue | Call::Commit) {
            backend.prepare(&name()).await.unwrap();
        } else {
            queue.enqueue_batch(&IDS.map(message)).await.unwrap();
        }
        if !matches!(call, Call::Enqueue | Call::Commit | Call::Purge) {
            let deliveries = queue.lease_batch(&LeaseOptions::new(3)).await.unwrap();
            receipts = deliveries.into_iter().map(|it| it.receipt).collect();
        }
        if matches!(call, Call::PurgeDead | Call::Redrive) {
            let letter = |receipt: Receipt| LeaseChange::dead_letter(receipt, "no");
            let letters: Vec<_> = receipts.drain(..).map(letter).collect();
            queue.change_batch(&letters).await.unwrap();
        }
        Self {
            call,
            backend,
            queue,
            receipts,
        }
    }

    /// Makes the call, and says how many messages it says that it did something with.
    async fn make(&self) -> Result<u64, Box<dyn std::error::Error>> {
        let applied = |outcomes: Vec<LeaseOutcome>| {
            let applied = |outcome: &&LeaseOutcome| **outcome == LeaseOutcome::Applied;
            assert_eq!(outcomes.iter().filter(applied).count(), outcomes.len());
            outcomes.len() as u64
        };
        Ok(match self.call {
            Call::Enqueue => {
                let outcomes = self.queue.enqueue_batch(&IDS.map(message)).await?;
                assert_eq!(outcomes, [EnqueueOutcome::Stored; 3]);
                3
            }
            Call::Ack => applied(vec![self.queue.ack(&self.receipts[0]).await?]),
            Call::AckBatch => applied(self.queue.ack_batch(&self.receipts).await?),
            Call::Nack => {
                let nack = |receipt: &Receipt| LeaseChange::nack(receipt.clone(), MINUTE);
                let nacks: Vec<_> = self.receipts.iter().map(nack).collect();
                applied(self.queue.change_batch(&nacks).await?)
            }
            Call::Purge => self.backend.purge(&name(), Purge::Live).await?,
            Call::PurgeDead => self.backend.purge(&name(), Purge::Dead).await?,
            Call::Redrive => self.backend.redrive(&name(), &Redrive::All).await?,
            Call::Commit => {
                let mut session = self.backend.start_session().await?;
                session.start_transaction().await?;
                let mut queues = self.backend.in_transaction(&mut session);
                queues.enqueue(&name(), &IDS.map(message)).await?;
                session.commit_transaction().await?;
                3
            }
        })
    }

    /// How many messages something was done with, by what is there.
    fn done(&self, left: &QueueStats) -> u64 {
        match self.call {
            Call::Enqueue | Call::Commit | Call::Redrive => left.ready,
            Call::Ack | Call::AckBatch => 3 - left.leased,
            Call::Nack => left.delayed,
            Call::Purge => 3 - left.ready,
            Call::PurgeDead => 3 - left.dead,
        }
    }
}

/// A backend on a client of the application's, and notice of each reply to `command`.
async fn connect(
    set: &MongoReplicaSet,
    number: usize,
    command: &'static str,
) -> (DocDbBackend, Arc<Notify>) {
    let replied = Arc::new(Notify::new());
    let notify = replied.clone();
    let uri = format!("{}&w=1&retryWrites=false", set.uri());
    let mut options = mongodb::options::ClientOptions::parse(uri).await.unwrap();
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        let replied_to = match &event {
            CommandEvent::Succeeded(it) => &it.command_name,
            CommandEvent::Failed(it) => &it.command_name,
            _ => return,
        };
        if replied_to == command {
            notify.notify_one();
        }
    }));
    let client = Client::with_options(options).unwrap();
    let database = client.database(&format!("case{number}"));
    let backend = DocDbBackend::from_database(database)
        .clock(Arc::new(ManualClock::new()))
        .operation_timeout(Duration::from_secs(30))
        .without_change_stream()
        .connect();
    (backend.await.unwrap(), replied)
}

/// The primary carries a write out that no other member gets, steps down, and is gone while the
/// others go on without it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_told_is_taken_back() {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new())
        .await
        .unwrap();
    for (number, (call, command)) in CALLS.into_iter().enumerate() {
        let primary = set.settled().await.unwrap();
        let (backend, replied) = connect(&set, number, command).await;
        let case = Case::prepare(call, backend).await;
        let others: Vec<_> = set
            .members()
            .into_iter()
            .filter(|member| *member != primary)
            .collect();
        for &other in &others {
            set.kill(other).await.unwrap();
        }
        // Whatever was replied to while it was made ready.
        let _ = tokio::time::timeout(Duration::ZERO, replied.notified()).await;
        let failover = async {
            replied.notified().await;
            set.kill(primary).await.unwrap();
            for &other in &others {
                set.start_again(other).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(case.make(), failover);
        set.primary().await.unwrap();
        let left = case.queue.stats().await.unwrap();
        if let Ok(told) = &answer {
            assert_eq!(*told, case.done(&left), "{call:?} said {told}: {left:?}");
        }
        set.start_again(primary).await.unwrap();
    }
    set.take_down().await.unwrap();
}
