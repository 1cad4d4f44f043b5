//! What the queue is compared with: plain use of the driver.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{Binary, Bson, DateTime, Document, RawDocumentBuf, Uuid, doc, spec::BinarySubtype},
    options::Hint,
};
use queue_api::MessageId;

use super::{
    backlog::{ensure_enough, in_batches, payload},
    batches::BATCH,
    location::Location,
};
use crate::window::{Window, work};

/// Longer than a round.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(60);

fn leased_until() -> DateTime {
    let now = DateTime::now().timestamp_millis();
    DateTime::from_millis(now + VISIBILITY_TIMEOUT.as_millis() as i64)
}

/// How most queues on MongoDB work: `findAndModify` and `deleteOne` per message, and `insertOne`
/// to enqueue.
#[derive(Clone)]
pub(super) struct Naive {
    messages: Collection<Document>,
    backlog: u64,
}

impl Naive {
    pub(super) async fn new(location: &Location, backlog: u64) -> Result<Self> {
        let messages = location.database().await?.collection("naive");
        let index = IndexModel::builder().keys(doc! { "visible_at": 1 });
        messages.create_index(index.build()).await?;
        let naive = Self { messages, backlog };
        naive.fill(backlog).await?;
        Ok(naive)
    }

    async fn fill(&self, messages: u64) -> Result<()> {
        let store = async |batch| {
            let batch = (0..batch).map(|_| Self::message());
            self.messages.insert_many(batch).await?;
            Ok(())
        };
        in_batches(messages, store).await
    }

    fn message() -> Document {
        let (subtype, bytes) = (BinarySubtype::Generic, payload().into_bytes());
        let payload = Binary { subtype, bytes };
        doc! { "visible_at": DateTime::now(), "attempts": 0, "payload": payload }
    }

    /// Messages per second that `tasks` tasks lease and ack.
    pub(super) async fn drain(&self, counted: Duration, tasks: usize) -> Result<f64> {
        let work = work(
            Window::after_warm_up(counted),
            tasks,
            self,
            Self::lease_and_ack,
        )
        .await?;
        ensure_enough(work.total, self.backlog)?;
        self.fill(work.total).await?;
        Ok(work.rate)
    }

    async fn lease_and_ack(self) -> Result<u64> {
        let nonce = Uuid::new();
        let ready = doc! { "visible_at": { "$lte": DateTime::now() } };
        let lease = doc! {
            "$set": { "visible_at": leased_until(), "lease": nonce },
            "$inc": { "attempts": 1 },
        };
        let leased = self.messages.find_one_and_update(ready, lease);
        let Some(leased) = leased.sort(doc! { "visible_at": 1 }).await? else {
            return Ok(0);
        };
        let id = leased.get("_id").context("a document has an _id")?;
        let ack = doc! { "_id": id, "lease": nonce };
        Ok(self.messages.delete_one(ack).await?.deleted_count)
    }

    pub(super) async fn enqueue(self) -> Result<u64> {
        self.messages.insert_one(Self::message()).await?;
        Ok(1)
    }
}

/// The lower bound for one document a message: find, update and delete of known documents, by one
/// caller. They have what our messages have, and an index to claim by.
#[derive(Clone)]
pub(super) struct Raw {
    messages: Collection<Document>,
    backlog: u64,
    ids: Arc<Mutex<VecDeque<Bson>>>,
}

impl Raw {
    const BATCH: usize = 1000;

    pub(super) async fn new(location: &Location, backlog: u64) -> Result<Self> {
        let messages = location.database().await?.collection("raw");
        let index = IndexModel::builder().keys(doc! { "visible_at": 1 });
        messages.create_index(index.build()).await?;
        let raw = Self {
            messages,
            backlog,
            ids: Arc::default(),
        };
        raw.fill(backlog).await?;
        Ok(raw)
    }

    async fn fill(&self, messages: u64) -> Result<()> {
        in_batches(messages, async |batch| self.insert(batch).await).await
    }

    async fn insert(&self, messages: u64) -> Result<()> {
        let messages = (0..messages).map(|_| Self::message());
        self.messages.insert_many(messages).ordered(false).await?;
        Ok(())
    }

    fn message() -> Document {
        let now = DateTime::now();
        let mut message = Naive::message();
        message.insert("_id", MessageId::generate().to_string());
        message.insert("enqueued_at", now);
        message.insert("visibility", 30_000_i64);
        message.insert("max_attempts", 25_i64);
        message
    }

    /// Messages per second that one caller leases and acks.
    pub(super) async fn drain(&self, counted: Duration) -> Result<f64> {
        self.find_ids().await?;
        let window = Window::after_warm_up(counted);
        let work = work(window, 1, self, Self::lease_and_ack).await?;
        ensure_enough(work.total, self.backlog)?;
        self.fill(work.total).await?;
        Ok(work.rate)
    }

    /// Finds the ids of the first messages, which a claim would take as well.
    async fn find_ids(&self) -> Result<()> {
        let found = self
            .messages
            .find(doc! { "visible_at": { "$lte": DateTime::now() } })
            .sort(doc! { "visible_at": 1 })
            .projection(doc! { "_id": 1 });
        let mut found: Vec<Document> = found.await?.try_collect().await?;
        let ids = found
            .iter_mut()
            .filter_map(|document| document.remove("_id"));
        *self.ids.lock().expect("not poisoned") = ids.collect();
        Ok(())
    }

    async fn lease_and_ack(self) -> Result<u64> {
        let ids: Vec<Bson> = {
            let mut ids = self.ids.lock().expect("not poisoned");
            ensure!(ids.len() >= Self::BATCH, "only {} ids are left", ids.len());
            ids.drain(..Self::BATCH).collect()
        };
        let these = doc! { "_id": { "$in": &ids } };
        let documents = self.messages.clone_with_type::<RawDocumentBuf>();
        let found = documents.find(these.clone());
        // One more than there are, so that the server closes the cursor with the first reply.
        let mut found = found.batch_size(Self::BATCH as u32 + 1).await?;
        while found.advance().await? {
            ensure!(
                found.current().as_bytes().len() > 256,
                "a payload is missing"
            );
        }
        let nonce = Uuid::new();
        let claim = doc! {
            "$set": { "lease": nonce, "visible_at": leased_until() },
            "$inc": { "attempts": 1_i64 },
        };
        let by_id = Hint::Keys(doc! { "_id": 1 });
        let claimed = self.messages.update_many(these, claim).hint(by_id);
        let claimed = claimed.await?.modified_count;
        let ack = doc! { "_id": { "$in": ids }, "lease": nonce };
        let acked = self.messages.delete_many(ack).await?.deleted_count;
        ensure!(
            (claimed, acked) == (Self::BATCH as u64, Self::BATCH as u64),
            "{claimed} of {} messages claimed, {acked} acked",
            Self::BATCH
        );
        Ok(acked)
    }

    pub(super) async fn enqueue(self) -> Result<u64> {
        self.insert(BATCH as u64).await?;
        Ok(BATCH as u64)
    }
}
