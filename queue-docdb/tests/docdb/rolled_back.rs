//! A failover undoes writes that no majority has. What the calls have returned must still be true.

use std::{sync::Arc, time::Duration};

use mongodb::{
    Client,
    bson::{Document, doc},
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};
use mongodb_test_server::{Member, MongoReplicaSet, ReplicaSetOptions};
use queue_api::{
    EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, ManualClock, Purge, Queue, QueueAdmin,
    QueueStats, QueueTransaction, Receipt, Redrive,
};
use queue_docdb::DocDbBackend;
use tokio::{
    sync::Notify,
    task::{self, LocalSet},
};

use crate::fixture::{MINUTE, message, name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Enqueue,
    Ack,
    AckBatch,
    Nack,
    Purge,
    PurgeDead,
    Redrive,
    Commit,
}

/// With the command that takes effect.
const OPERATIONS: [(Operation, &str); 8] = [
    (Operation::Enqueue, "insert"),
    (Operation::Ack, "delete"),
    (Operation::AckBatch, "delete"),
    (Operation::Nack, "update"),
    (Operation::Purge, "delete"),
    (Operation::PurgeDead, "delete"),
    (Operation::Redrive, "update"),
    (Operation::Commit, "commitTransaction"),
];

const IDS: [&str; 3] = ["a", "b", "c"];

/// A call on its own database.
struct Case {
    operation: Operation,
    database: String,
    backend: DocDbBackend,
    queue: Queue,
    receipts: Vec<Receipt>,
    /// Notified of each answer to the command that takes effect.
    answered: Arc<Notify>,
}

impl Case {
    /// Prepares a queue of three messages, on the application's own client.
    async fn prepare(uri: &str, operation: Operation, command: &'static str) -> Self {
        let answered = Arc::new(Notify::new());
        let notify = answered.clone();
        let uri = format!("{uri}&w=1&retryWrites=false");
        let mut options = ClientOptions::parse(uri).await.unwrap();
        options.command_event_handler = Some(EventHandler::callback(move |event| {
            let answered = match &event {
                CommandEvent::Succeeded(it) => &it.command_name,
                CommandEvent::Failed(it) => &it.command_name,
                _ => return,
            };
            if answered == command {
                notify.notify_one();
            }
        }));
        let database = format!("{operation:?}");
        let client = Client::with_options(options).unwrap();
        let backend = DocDbBackend::from_database(client.database(&database))
            .clock(Arc::new(ManualClock::new()))
            .operation_timeout(MINUTE)
            .without_change_stream()
            .connect()
            .await
            .unwrap();
        let queue = Queue::new(Arc::new(backend.clone()), "mail").unwrap();
        let mut case = Self {
            operation,
            database,
            backend,
            queue,
            receipts: Vec::new(),
            answered,
        };
        case.fill().await;
        // Forget the answers so far.
        let _ = tokio::time::timeout(Duration::ZERO, case.answered.notified()).await;
        case
    }

    async fn fill(&mut self) {
        if matches!(self.operation, Operation::Enqueue | Operation::Commit) {
            return self.backend.prepare(&name()).await.unwrap();
        }
        self.queue.enqueue_batch(&IDS.map(message)).await.unwrap();
        if self.operation == Operation::Purge {
            return;
        }
        let deliveries = self.queue.lease_batch(&LeaseOptions::new(3)).await.unwrap();
        self.receipts = deliveries.into_iter().map(|each| each.receipt).collect();
        if matches!(self.operation, Operation::PurgeDead | Operation::Redrive) {
            let letter = |receipt: Receipt| LeaseChange::dead_letter(receipt, "no");
            let letters: Vec<_> = self.receipts.drain(..).map(letter).collect();
            self.queue.change_batch(&letters).await.unwrap();
        }
    }

    /// Makes the call, and returns the number of messages in its answer.
    async fn make(&self) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        let applied = |outcomes: Vec<LeaseOutcome>| {
            assert!(outcomes.iter().all(|it| *it == LeaseOutcome::Applied));
            outcomes.len() as u64
        };
        Ok(match self.operation {
            Operation::Enqueue => {
                let outcomes = self.queue.enqueue_batch(&IDS.map(message)).await?;
                assert_eq!(outcomes, [EnqueueOutcome::Stored; 3]);
                3
            }
            Operation::Ack => applied(vec![self.queue.ack(&self.receipts[0]).await?]),
            Operation::AckBatch => applied(self.queue.ack_batch(&self.receipts).await?),
            Operation::Nack => {
                let nack = |receipt: &Receipt| LeaseChange::nack(receipt.clone(), MINUTE);
                let nacks: Vec<_> = self.receipts.iter().map(nack).collect();
                applied(self.queue.change_batch(&nacks).await?)
            }
            Operation::Purge => self.backend.purge(&name(), Purge::Live).await?,
            Operation::PurgeDead => self.backend.purge(&name(), Purge::Dead).await?,
            Operation::Redrive => self.backend.redrive(&name(), &Redrive::All).await?,
            Operation::Commit => {
                let mut session = self.backend.start_session().await?;
                session.start_transaction().await?;
                let mut queues = self.backend.in_transaction(&mut session);
                queues.enqueue(&name(), &IDS.map(message)).await?;
                session.commit_transaction().await?;
                3
            }
        })
    }

    /// The number of messages that the call has changed, by what the queue holds now.
    fn changed(&self, now: &QueueStats) -> u64 {
        match self.operation {
            Operation::Enqueue | Operation::Commit | Operation::Redrive => now.ready,
            Operation::Ack | Operation::AckBatch => 3 - now.leased,
            Operation::Nack => now.delayed,
            Operation::Purge => 3 - now.ready,
            Operation::PurgeDead => 3 - now.dead,
        }
    }

    /// Whether this member has the call's write.
    async fn has_taken_effect(&self, member: &Client) -> bool {
        let messages = member
            .database(&self.database)
            .collection::<Document>("queue.mail");
        let (filter, expected) = match self.operation {
            Operation::Enqueue | Operation::Commit => (doc! { "payload": { "$exists": true } }, 3),
            Operation::Ack => (doc! { "lease": { "$exists": true } }, 2),
            Operation::Nack => (doc! { "settled": { "$exists": true } }, 3),
            Operation::Redrive => (doc! { "dead": { "$exists": true } }, 0),
            Operation::AckBatch | Operation::Purge | Operation::PurgeDead => {
                (doc! { "payload": { "$exists": true } }, 0)
            }
        };
        messages.count_documents(filter).await.unwrap() == expected
    }
}

async fn direct(set: &MongoReplicaSet, member: Member) -> Client {
    Client::with_uri_str(set.member_uri(member)).await.unwrap()
}

/// Whether a secondary copies the primary's writes.
async fn set_replication(secondary: &Client, is_on: bool) {
    let mode = if is_on { "off" } else { "alwaysOn" };
    let command = doc! { "configureFailPoint": "stopReplProducer", "mode": mode };
    let admin = secondary.database("admin");
    admin.run_command(command).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_returned_survives_a_failover() {
    LocalSet::new().run_until(fail_over()).await;
}

/// The primary carries writes out that no other member gets. It steps down, which answers the
/// calls, and ends. Then the others elect a primary without these writes.
async fn fail_over() {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new())
        .await
        .unwrap();
    let mut cases = Vec::new();
    for (operation, command) in OPERATIONS {
        cases.push(Arc::new(
            Case::prepare(&set.uri(), operation, command).await,
        ));
    }
    let primary = set.settled().await.unwrap();
    let mut secondaries = Vec::new();
    for member in set.members() {
        if member != primary {
            let secondary = direct(&set, member).await;
            set_replication(&secondary, false).await;
            secondaries.push(secondary);
        }
    }

    let mut calls = Vec::new();
    for case in &cases {
        let case = case.clone();
        calls.push(task::spawn_local(async move {
            let answer = case.make().await;
            // So that the test does not wait for an answer after the call has ended.
            case.answered.notify_one();
            answer
        }));
    }
    let old = direct(&set, primary).await;
    for (case, call) in cases.iter().zip(&calls) {
        while !case.has_taken_effect(&old).await {
            assert!(!call.is_finished(), "{:?} did nothing", case.operation);
        }
    }
    let step_down = doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 0, "force": true };
    old.database("admin").run_command(step_down).await.unwrap();
    for case in &cases {
        case.answered.notified().await;
    }
    set.kill(primary).await.unwrap();
    for secondary in &secondaries {
        set_replication(secondary, true).await;
    }

    set.primary().await.unwrap();
    for (case, call) in cases.iter().zip(calls) {
        let answer = call.await.unwrap();
        let now = case.queue.stats().await.unwrap();
        if let Ok(returned) = answer {
            assert_eq!(
                returned,
                case.changed(&now),
                "{:?}: {now:?}",
                case.operation
            );
        }
    }
    set.shut_down().await.unwrap();
}
