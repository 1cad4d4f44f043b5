//! Looks at a queue's collection, for tools.

use mongodb::bson::doc;
use queue_api::{QueueName, Result};

use crate::{
    backend::DocDbBackend,
    store::{
        collection::QueueCollection,
        error::{StoreError, during},
        index::Index,
        inspect::{self, Contents},
    },
};

impl DocDbBackend {
    /// Whether the queue exists: whether `list_queues` lists it. It changes nothing.
    ///
    /// # Errors
    /// [`InvalidInput`](queue_api::ErrorKind::InvalidInput): the database has no room for the name.
    /// Otherwise, the server did not answer or refused.
    pub async fn queue_exists(&self, queue: &QueueName) -> Result<bool> {
        let call = async { self.direct.collection(queue)?.is_queue().await };
        during("inspect queue", call).await
    }

    /// The names of the indexes that the queue lacks. It changes nothing; the next enqueue or lease
    /// makes them. A queue that does not exist lacks none.
    ///
    /// # Errors
    /// - [`InvalidInput`](queue_api::ErrorKind::InvalidInput): the collection is another program's,
    ///   the queue is of another schema, or an index is in the way of the queue's own.
    /// - [`Denied`](queue_api::ErrorKind::Denied): the user may not list indexes.
    pub async fn missing_indexes(&self, queue: &QueueName) -> Result<Vec<&'static str>> {
        let call = async { self.direct.collection(queue)?.missing_indexes().await };
        during("inspect queue", call).await
    }
}

impl QueueCollection {
    pub(crate) async fn is_queue(&self) -> Result<bool, StoreError> {
        match self.inspect().await? {
            Contents::Foreign(_) | Contents::Missing | Contents::Empty => Ok(false),
            // A call that did not know may have stored some.
            Contents::Deleted => self.has(doc! { "_id": { "$ne": inspect::id() } }).await,
            _ => Ok(true),
        }
    }

    async fn missing_indexes(&self) -> Result<Vec<&'static str>, StoreError> {
        if self.check_now().await? == Contents::Missing {
            return Ok(Vec::new());
        }
        let existing = self.indexes().await?;
        let mut missing = Vec::new();
        for index in Index::of_queue(self.state.knowledge.is_keyed()) {
            if !index.is_among(&existing, self.messages.name())? {
                missing.push(index.name());
            }
        }
        Ok(missing)
    }
}
