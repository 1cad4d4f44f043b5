//! What the rows are measured against, straight through the driver.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Collection, Database,
    bson::{Bson, DateTime, Document, RawDocumentBuf, Uuid, doc, spec::BinarySubtype},
    options::IndexOptions,
};
use queue_docdb::DocDbBuilder;

use super::{
    place::{Place, QUEUE},
    stock::payload,
};

/// How many documents a command of [`Raw`] is about.
const RAW_BATCH: usize = 1000;

/// Long enough for a round.
const VISIBILITY: Duration = Duration::from_secs(60);

fn leased_until() -> DateTime {
    DateTime::from_millis(DateTime::now().timestamp_millis() + VISIBILITY.as_millis() as i64)
}

/// What every queue on MongoDB does: one findOneAndUpdate sorted by time and one deleteOne for
/// each message.
#[derive(Clone)]
pub(super) struct Naive {
    messages: Collection<Document>,
}

impl Naive {
    /// With so many messages to begin with.
    pub(super) async fn new(place: &Place, messages: u64) -> anyhow::Result<Self> {
        let naive = Self {
            messages: naive_collection(&place.database().await?, "naive").await?,
        };
        naive.fill(messages).await?;
        Ok(naive)
    }

    pub(super) async fn fill(&self, messages: u64) -> anyhow::Result<()> {
        let batches = (0..messages).step_by(1000).map(|from| async move {
            let batch = (from..messages.min(from + 1000)).map(|_| naive_message());
            self.messages.insert_many(batch).await.map(drop)
        });
        stream::iter(batches)
            .buffer_unordered(4)
            .try_collect::<()>()
            .await?;
        Ok(())
    }

    pub(super) async fn lease_and_ack(&self) -> anyhow::Result<u64> {
        let nonce = Uuid::new();
        let ready = doc! { "visible_at": { "$lte": DateTime::now() } };
        let lease = doc! {
            "$set": { "visible_at": leased_until(), "lease": nonce },
            "$inc": { "attempts": 1 },
        };
        let leased = self
            .messages
            .find_one_and_update(ready, lease)
            .sort(doc! { "visible_at": 1 })
            .await?;
        let Some(leased) = leased else { return Ok(0) };
        let id = leased
            .get("_id")
            .cloned()
            .context("each document has one")?;
        let acked = self
            .messages
            .delete_one(doc! { "_id": id, "lease": nonce })
            .await?;
        Ok(acked.deleted_count)
    }
}

/// One `insert_one` for each message.
#[derive(Clone)]
pub(super) struct InsertOne {
    messages: Collection<Document>,
}

impl InsertOne {
    pub(super) async fn new(place: &Place) -> anyhow::Result<Self> {
        Ok(Self {
            messages: naive_collection(&place.database().await?, "inserts").await?,
        })
    }

    pub(super) async fn insert(&self) -> anyhow::Result<u64> {
        self.messages.insert_one(naive_message()).await?;
        Ok(1)
    }
}

async fn naive_collection(database: &Database, name: &str) -> anyhow::Result<Collection<Document>> {
    let messages = database.collection(name);
    let index = mongodb::IndexModel::builder()
        .keys(doc! { "visible_at": 1 })
        .options(
            IndexOptions::builder()
                .name("visible_at_1".to_owned())
                .build(),
        )
        .build();
    messages.create_index(index).await?;
    Ok(messages)
}

fn naive_message() -> Document {
    let payload = mongodb::bson::Binary {
        subtype: BinarySubtype::Generic,
        bytes: payload().to_vec(),
    };
    doc! { "visible_at": DateTime::now(), "attempts": 0, "payload": payload }
}

/// Find, update and delete of 1000 documents whose ids are known, one after another by one caller:
/// what any design with one update and one delete costs at least. They are the documents and the
/// indexes of a queue of ours, and the update sets what a claim sets.
#[derive(Clone)]
pub(super) struct Raw {
    messages: Collection<RawDocumentBuf>,
    known: Arc<Mutex<VecDeque<Bson>>>,
}

impl Raw {
    pub(super) async fn new(place: &Place) -> anyhow::Result<Self> {
        let name = format!("{}{QUEUE}", DocDbBuilder::DEFAULT_COLLECTION_PREFIX);
        Ok(Self {
            messages: place.database().await?.collection(&name),
            known: Arc::default(),
        })
    }

    /// Gets to know the first ones, as a claim would take them.
    pub(super) async fn look(&self, documents: u64) -> anyhow::Result<()> {
        let messages = self.messages.clone_with_type::<Document>();
        let found = messages
            .find(doc! { "visible_at": { "$lte": DateTime::now() } })
            .sort(doc! { "visible_at": 1 })
            .projection(doc! { "_id": 1 })
            .limit(i64::try_from(documents)?);
        let found: Vec<Document> = found.await?.try_collect().await?;
        let ids = found
            .into_iter()
            .filter_map(|mut document| document.remove("_id"));
        *self.known() = ids.collect();
        Ok(())
    }

    pub(super) async fn pass(&self) -> anyhow::Result<u64> {
        let ids: Vec<Bson> = {
            let mut known = self.known();
            ensure!(
                known.len() >= RAW_BATCH,
                "more documents are needed than are known"
            );
            known.drain(..RAW_BATCH).collect()
        };
        let asked = i64::try_from(ids.len())?;
        let find = self.messages.find(doc! { "_id": { "$in": &ids } });
        let mut found = find.limit(asked).batch_size(RAW_BATCH as u32 + 1).await?;
        let mut bytes = 0;
        while found.advance().await? {
            bytes += found.current().as_bytes().len();
        }
        ensure!(bytes > 256 * RAW_BATCH, "each has a payload");

        let nonce = Uuid::new();
        let claim = doc! {
            "$set": { "lease": nonce, "visible_at": leased_until() },
            "$inc": { "attempts": 1_i64 },
        };
        let claimed = self
            .messages
            .update_many(doc! { "_id": { "$in": &ids } }, claim)
            .await?;
        ensure!(
            claimed.modified_count == RAW_BATCH as u64,
            "nobody else is there"
        );
        let acked = doc! { "_id": { "$in": ids }, "lease": nonce };
        let acked = self.messages.delete_many(acked).await?;
        ensure!(
            acked.deleted_count == RAW_BATCH as u64,
            "nobody else is there"
        );
        Ok(acked.deleted_count)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, VecDeque<Bson>> {
        self.known.lock().expect("taking some out does not panic")
    }
}
