//! The version of a queue's documents, kept with them: two versions of this library that do not
//! mean the same by a document must not work on the same queue.
//!
//! It is a document of the queue's collection, so it comes and goes with the queue and costs
//! nobody a collection. Its `_id` is no string, so no message can have it; and it has neither of
//! the fields that the indexes are on, so no claim, count or purge meets it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mongodb::bson::{Document, RawDocument, doc};
use tokio::time::Instant;

use crate::{
    collection::{Query, QueueCollection},
    document,
    error::StoreError,
};

/// What this version of the library writes, and the only one that it reads.
///
/// A version that changes what documents mean raises this, and changes the keys of the claim
/// index with it. Instances that still trust the old version then miss the index that their hints
/// name, and look at the version again before they make it anew.
const VERSION: u32 = 2;

/// For how long a version that was looked at is not looked at again.
const TRUST: Duration = Duration::from_secs(60);

/// The same for a queue that says nothing: whoever uses it first decides.
const TRUST_NOTHING: Duration = Duration::from_secs(5);

/// What an instance knows about the version of a queue.
#[derive(Debug, Default)]
pub(crate) struct SchemaMemory {
    /// A std mutex: it is held for a copy, never across an await.
    trusted_until: Mutex<Option<Instant>>,
}

impl SchemaMemory {
    fn is_trusted(&self) -> bool {
        let until = *self.until();
        until.is_some_and(|until| Instant::now() < until)
    }

    fn trust(&self, time: Duration) {
        *self.until() = Some(Instant::now() + time);
    }

    pub(crate) fn forget(&self) {
        *self.until() = None;
    }

    fn until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        let until = self.trusted_until.lock();
        until.unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueCollection {
    /// Refuses a queue whose documents are of another version. A queue that says nothing is new,
    /// or its first message is on its way.
    pub(crate) async fn check_schema(&self) -> Result<(), StoreError> {
        if self.state.schema.is_trusted() {
            return Ok(());
        }
        match self.version().await? {
            Some(Some(VERSION)) => {
                self.state.schema.trust(TRUST);
                Ok(())
            }
            None => {
                // Whatever this instance made there is gone, with the queue.
                self.state.indexes.forget();
                self.state.schema.trust(TRUST_NOTHING);
                Ok(())
            }
            Some(other) => Err(StoreError::Schema(format!(
                "the queue's documents are of schema {}, this version of queue-docdb knows \
                 schema {VERSION} only: use one that knows theirs",
                other.map_or("unknown".to_owned(), |version| version.to_string()),
            ))),
        }
    }

    /// The version, if there is one, and if it is a number.
    async fn version(&self) -> Result<Option<Option<u32>>, StoreError> {
        let query = Query::by_ids(doc! { "_id": id() }, 1);
        let read = |found: &RawDocument| document::count(found, "version");
        let mut retries = self.deadline.retries();
        loop {
            match self
                .find_once(&retries, usize::MAX, query.clone(), &read)
                .await
            {
                Ok((found, _)) => return Ok(found.first().copied()),
                Err(error) => retries.after(error).await?,
            }
        }
    }

    /// Writes the version, before the first message.
    pub(crate) async fn claim_schema(&self) -> Result<(), StoreError> {
        let version = doc! { "_id": id(), "version": i64::from(VERSION) };
        let documents = self.messages.clone_with_type::<Document>();
        let mut retries = self.deadline.retries();
        loop {
            let error = match retries.run(documents.insert_one(&version)).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if error.is_duplicate() {
                // Somebody was first, perhaps with another version.
                self.state.schema.forget();
                return self.check_schema().await;
            }
            retries.after(error).await?;
        }
    }
}

fn id() -> Document {
    doc! { "queue-docdb": "schema" }
}
