//! Collections that are not queues. No call changes them, and none takes them for an empty queue.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::{DateTime, Document, doc};
use mongodb_test_server::documentdb::Engines;
use queue_api::{
    Error, ErrorKind, LeaseChange, LeaseOptions, PageOptions, Purge, QueueAdmin, QueueBackend,
    QueueName, QueueStats, QueueTransaction, Receipt, Redrive, Result,
};
use queue_docdb::DocDbBackend;

use crate::fixture::{Fixture, TRANSACTIONAL, applied, lease, message, name, queue_of};

tests! {
    on_one_thread:
        a_collection_of_another_program_is_refused_and_not_changed_by_any_call,
        the_list_of_queues_has_no_collection_of_another_program,
        calls_other_than_enqueue_leave_nothing_behind_where_there_is_no_queue,
        a_queue_that_was_half_made_is_none_until_it_is_completed,
        reads_work_without_indexes_and_make_none
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Enqueue,
    Lease,
    Ack,
    Change,
    Wait,
    Stats,
    Peek,
    Messages,
    DeadLetters,
    PurgeLive,
    PurgeDead,
    RedriveAll,
    RedriveIds,
    DeleteQueue,
    Prepare,
    EnqueueInTransaction,
    AckInTransaction,
}

pub(crate) const CALLS: [Call; 17] = [
    Call::Enqueue,
    Call::Lease,
    Call::Ack,
    Call::Change,
    Call::Wait,
    Call::Stats,
    Call::Peek,
    Call::Messages,
    Call::DeadLetters,
    Call::PurgeLive,
    Call::PurgeDead,
    Call::RedriveAll,
    Call::RedriveIds,
    Call::DeleteQueue,
    Call::Prepare,
    Call::EnqueueInTransaction,
    Call::AckInTransaction,
];

impl Call {
    /// Makes the call on the queue `mail`. The receipt is of a message `a` of another queue.
    async fn make(self, backend: &DocDbBackend, receipt: &Receipt) -> Result<()> {
        self.make_on(&name(), backend, receipt).await
    }

    pub(crate) async fn make_on(
        self,
        queue: &QueueName,
        backend: &DocDbBackend,
        receipt: &Receipt,
    ) -> Result<()> {
        let receipts = [receipt.clone()];
        match self {
            Self::Enqueue => backend.enqueue(queue, &[message("a")]).await.map(drop),
            Self::Lease => backend.lease(queue, &LeaseOptions::new(9)).await.map(drop),
            Self::Ack => backend.ack(queue, &receipts).await.map(drop),
            Self::Change => {
                let changes = [LeaseChange::nack(receipt.clone(), Duration::ZERO)];
                backend.change(queue, &changes).await.map(drop)
            }
            Self::Wait => backend.wait(queue, Duration::ZERO).await,
            Self::Stats => backend.stats(queue).await.map(drop),
            Self::Peek => backend.peek(queue, 9).await.map(drop),
            Self::Messages => {
                let page = PageOptions::new(9);
                backend.messages(queue, &page).await.map(drop)
            }
            Self::DeadLetters => {
                let page = PageOptions::new(9);
                backend.dead_letters(queue, &page).await.map(drop)
            }
            Self::PurgeLive => backend.purge(queue, Purge::Live).await.map(drop),
            Self::PurgeDead => backend.purge(queue, Purge::Dead).await.map(drop),
            Self::RedriveAll => backend.redrive(queue, &Redrive::All).await.map(drop),
            Self::RedriveIds => {
                let ids = Redrive::Ids(vec![crate::fixture::id("a")]);
                backend.redrive(queue, &ids).await.map(drop)
            }
            Self::DeleteQueue => backend.delete_queue(queue).await,
            Self::Prepare => backend.prepare(queue).await,
            Self::EnqueueInTransaction | Self::AckInTransaction => {
                let mut session = backend.start_session().await?;
                session.start_transaction().await.unwrap();
                let mut queues = backend.in_transaction(&mut session);
                let called = match self {
                    Self::AckInTransaction => queues.ack(queue, &receipts).await.map(drop),
                    _ => queues.enqueue(queue, &[message("a")]).await.map(drop),
                };
                session.abort_transaction().await.unwrap();
                called
            }
        }
    }
}

/// A collection that another program made under the name of a queue's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Documents,
    /// Their fields are called like those of a message.
    LookAlikes,
    View,
    EmptyView,
    TimeSeries,
    EmptyTimeSeries,
    Capped,
    EmptyCapped,
}

const KINDS: [Kind; 8] = [
    Kind::Documents,
    Kind::LookAlikes,
    Kind::View,
    Kind::EmptyView,
    Kind::TimeSeries,
    Kind::EmptyTimeSeries,
    Kind::Capped,
    Kind::EmptyCapped,
];

impl Kind {
    async fn create(self, database: &mongodb::Database) {
        let options = match self {
            Self::Documents | Self::LookAlikes => doc! {},
            Self::View | Self::EmptyView => doc! { "viewOn": "source", "pipeline": [] },
            Self::TimeSeries | Self::EmptyTimeSeries => {
                doc! { "timeseries": { "timeField": "visible_at" } }
            }
            Self::Capped | Self::EmptyCapped => doc! { "capped": true, "size": 4096 },
        };
        let mut create = doc! { "create": "queue.mail" };
        create.extend(options);
        database.run_command(create).await.unwrap();
        let written = match self {
            Self::EmptyView | Self::EmptyTimeSeries | Self::EmptyCapped => return,
            Self::View => "source",
            _ => "queue.mail",
        };
        let past = DateTime::from_millis(1);
        let documents = match self {
            Self::LookAlikes => vec![
                doc! { "_id": "a", "ids": ["a"], "rev": 1_i64, "visible_at": past, "attempts": 0 },
                doc! { "_id": "b", "ids": ["b"], "dead_key": "a", "parted": true, "parts": [] },
            ],
            _ => vec![
                doc! { "_id": 7, "user": "ada", "visible_at": past },
                doc! { "_id": "a", "user": "bob", "visible_at": past },
            ],
        };
        let written = database.collection::<Document>(written);
        written.insert_many(documents).await.unwrap();
    }
}

/// What is in the database: collections, indexes and documents.
async fn state(database: &mongodb::Database) -> Vec<String> {
    let list = doc! { "listCollections": 1 };
    let listed = database.run_command(list).await.unwrap();
    let mut state = vec![];
    let cursor = listed.get_document("cursor").unwrap();
    for listed in cursor.get_array("firstBatch").unwrap() {
        let listed = listed.as_document().unwrap();
        let name = listed.get_str("name").unwrap();
        // The other queue, whose message is leased.
        if name == "queue.other" {
            continue;
        }
        state.push(listed.to_string());
        if listed.get_str("type").unwrap() != "view" {
            let list = doc! { "listIndexes": name };
            let indexes = database.run_command(list).await.unwrap();
            let cursor = indexes.get_document("cursor").unwrap();
            state.push(format!(
                "{name}: {}",
                cursor.get_array("firstBatch").unwrap().len()
            ));
        }
        let found = database.collection::<Document>(name).find(doc! {}).await;
        let found: Vec<Document> = found.unwrap().try_collect().await.unwrap();
        state.extend(found.iter().map(Document::to_string));
    }
    state.sort();
    state
}

pub(crate) async fn receipt_of_another_queue(fixture: &Fixture) -> Receipt {
    let other = QueueName::new("other").unwrap();
    let backend = &fixture.backend;
    backend.enqueue(&other, &[message("a")]).await.unwrap();
    let leased = backend.lease(&other, &LeaseOptions::new(1)).await.unwrap();
    leased[0].receipt.clone()
}

fn complaint(called: &Result<()>) -> Option<String> {
    match called {
        Ok(()) => Some("succeeds".to_owned()),
        Err(error) => is_about_the_collection(error).err(),
    }
}

fn is_about_the_collection(error: &Error) -> std::result::Result<(), String> {
    let is_named = error.to_string().contains("`queue.mail`");
    match error.kind() == ErrorKind::InvalidInput && is_named {
        true => Ok(()),
        false => Err(format!("{:?}: {error}", error.kind())),
    }
}

/// Both an instance that sees the collection for the first time, and one that saw it missing.
async fn a_collection_of_another_program_is_refused_and_not_changed_by_any_call() {
    let mut complaints = Vec::new();
    for kind in KINDS {
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let receipt = receipt_of_another_queue(&fixture).await;
        for call in CALLS {
            fixture.queue().stats().await.unwrap();
            kind.create(&fixture.raw).await;
            let before = state(&fixture.raw).await;
            for _ in 0..2 {
                let called = call.make(&fixture.backend, &receipt).await;
                if let Some(complaint) = complaint(&called) {
                    complaints.push(format!("{kind:?}, {call:?} {complaint}"));
                }
            }
            let after = state(&fixture.raw).await;
            if after != before {
                complaints.push(format!("{kind:?}, {call:?} changes it to {after:?}"));
            }
            for made in ["queue.mail", "source"] {
                let made = fixture.raw.collection::<Document>(made);
                made.drop().await.unwrap();
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

async fn the_list_of_queues_has_no_collection_of_another_program() {
    for kind in KINDS {
        let fixture = Fixture::new().await;
        receipt_of_another_queue(&fixture).await;
        kind.create(&fixture.raw).await;
        let listed = fixture.backend.list_queues().await.unwrap();
        assert_eq!(listed, [QueueName::new("other").unwrap()], "{kind:?}");
    }
}

/// A collection that is missing, or has neither documents nor indexes of a queue.
async fn calls_other_than_enqueue_leave_nothing_behind_where_there_is_no_queue() {
    let mut complaints = Vec::new();
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = receipt_of_another_queue(&fixture).await;
    for is_missing in [true, false] {
        if !is_missing {
            let created = fixture.raw.create_collection("queue.mail");
            created.await.unwrap();
        }
        let before = state(&fixture.raw).await;
        for call in CALLS {
            if matches!(
                call,
                Call::Enqueue | Call::Prepare | Call::EnqueueInTransaction
            ) {
                continue;
            }
            if let Err(error) = call.make(&fixture.backend, &receipt).await {
                complaints.push(format!("missing {is_missing}, {call:?}: {error:?}"));
            }
            let after = state(&fixture.raw).await;
            if after != before {
                complaints.push(format!("missing {is_missing}, {call:?} leaves {after:?}"));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let queue = fixture.queue();
    assert_eq!(queue.stats().await.unwrap(), QueueStats::default());
    // An operator may create the collection, for example to shard it.
    queue.enqueue(&message("a")).await.unwrap();
    assert_eq!(lease(&queue, 9).await.len(), 1);
}

/// A creation that was interrupted leaves an empty collection with an index.
async fn a_queue_that_was_half_made_is_none_until_it_is_completed() {
    for delete in [true, false] {
        let fixture = Fixture::new().await;
        fixture.queue().enqueue(&message("a")).await.unwrap();
        let documents = fixture.documents();
        documents.delete_many(doc! {}).await.unwrap();
        documents.drop_index("dead_key_1").await.unwrap();
        let other = fixture.another_backend(fixture.clock.clone()).await;
        let queue = queue_of(&other);
        assert_eq!(queue.stats().await.unwrap(), QueueStats::default());
        assert!(lease(&queue, 9).await.is_empty());
        if delete {
            other.delete_queue(&name()).await.unwrap();
        }
        assert!(other.list_queues().await.unwrap().is_empty());
        queue.enqueue(&message("b")).await.unwrap();
        assert_eq!(documents.list_index_names().await.unwrap().len(), 5);
        assert_eq!(lease(&queue, 9).await.len(), 1);
    }
}

/// Looking at a queue whose indexes are missing makes none.
async fn reads_work_without_indexes_and_make_none() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let both = [message("a"), message("b")];
    queue.enqueue_batch(&both).await.unwrap();
    let first = queue.lease().await.unwrap().expect("it is ready");
    applied(queue.dead_letter(&first.receipt, "no")).await;
    fixture.documents().drop_indexes().await.unwrap();
    let other = fixture.another_backend(fixture.clock.clone()).await;
    let before = state(&fixture.raw).await;
    for backend in [&fixture.backend, &other] {
        let stats = queue_of(backend).stats().await.unwrap();
        assert_eq!((stats.ready, stats.dead), (1, 1));
        assert!(stats.oldest_ready.is_some());
        assert_eq!(backend.peek(&name(), 9).await.unwrap().len(), 1);
        let page = PageOptions::new(9);
        let letters = backend.dead_letters(&name(), &page).await.unwrap();
        assert_eq!(letters.len(), 1);
        let messages = backend.messages(&name(), &page).await.unwrap();
        assert_eq!(messages.len(), 1);
        backend
            .wait(&name(), Duration::from_secs(60))
            .await
            .unwrap();
    }
    assert_eq!(state(&fixture.raw).await, before);
    // A lease is a write, so it makes them again.
    assert_eq!(lease(&queue_of(&other), 9).await.len(), 1);
    let indexes = fixture.documents().list_index_names().await.unwrap();
    assert_eq!(indexes.len(), 5, "{indexes:?}");
}
