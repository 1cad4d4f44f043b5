//! Delete a queue: mark it as deleted, and remove its messages.
//!
//! The collection stays. Another instance may have found a queue there up to a minute ago, and insert
//! without another look. The server would then make a collection without the unique index, which
//! stores an id twice. For the same reason, a queue whose creation was interrupted is completed first:
//! its creator may go on.

use mongodb::bson::doc;

use crate::store::{
    collection::QueueCollection,
    error::StoreError,
    index::Index,
    inspect::{self, Contents, DELETED},
};

/// How often the removal of all messages is tried. Each has the operation timeout, and goes on where
/// the one before ended.
const MOST_TRIES: u32 = 100;

impl QueueCollection {
    pub(crate) async fn delete_queue(&self) -> Result<(), StoreError> {
        self.state.knowledge.forget();
        match self.check_now().await? {
            Contents::Missing => return Ok(()),
            Contents::Empty => {
                let indexes = self.indexes().await?;
                if !Index::Claim.is_among(&indexes, self.messages.name())? {
                    return Ok(());
                }
                self.prepare().await?;
            }
            Contents::Unversioned => self.prepare().await?,
            _ => {}
        }
        let deleted = self.now().await;
        let mark = doc! { "q": { "_id": inspect::id() }, "u": { "$set": { DELETED: deleted } } };
        // A mark may be written twice.
        self.update_repeatedly(vec![mark]).await?;
        self.state.knowledge.forget();
        self.remove_all().await
    }

    async fn remove_all(&self) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            let removed = self.next_step().remove_all_within_step().await;
            let is_slow = matches!(removed, Err(StoreError::TimedOut(_)));
            // If nothing is left, only a majority is missing.
            if !is_slow || tries == MOST_TRIES || !self.next_step().has_entries().await? {
                return removed;
            }
            tries += 1;
        }
    }

    async fn remove_all_within_step(&self) -> Result<(), StoreError> {
        let all = doc! { "q": { "_id": { "$ne": inspect::id() } }, "limit": 0 };
        let mut retries = self.deadline.retries();
        loop {
            // Also if it removes nothing, the answer is that of a majority.
            match self.delete_again(vec![all.clone()], &retries).await {
                Ok(_) => return Ok(()),
                Err(error) => retries.after(error).await?,
            }
        }
    }
}
