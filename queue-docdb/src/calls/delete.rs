//! Delete a queue: mark it as deleted, and remove its messages.
//!
//! The collection stays. Another instance may have found a queue there up to a minute ago, and insert
//! without another look. The server would then make a collection without the unique index, which
//! stores an id twice. A queue that has long been deleted is dropped when it is deleted again.

use std::time::{Duration, SystemTime};

use mongodb::bson::{DateTime, doc};

use crate::store::{
    collection::QueueCollection,
    error::StoreError,
    index::Index,
    inspect::{self, Contents, DELETED, DROPPING},
};

/// After this time, every instance has looked again, and clocks that differ do no harm.
const LONG_AGO: Duration = Duration::from_secs(3600);

/// How often the removal of all messages is tried. Each has the operation timeout, and goes on where
/// the one before ended.
const MOST_TRIES: u32 = 100;

impl QueueCollection {
    pub(crate) async fn delete_queue(&self) -> Result<(), StoreError> {
        self.state.knowledge.forget();
        let contents = self.check_now().await?;
        match contents {
            Contents::Missing => return Ok(()),
            Contents::Dropping => return self.drop_collection().await,
            // A queue whose creation was interrupted, or an empty collection.
            Contents::Empty => {
                let indexes = self.indexes().await?;
                return match Index::Claim.is_among(&indexes, self.messages.name())? {
                    true => self.drop_collection().await,
                    false => Ok(()),
                };
            }
            Contents::Deleted(at) if is_long_ago(at) && !self.has_entries().await? => {
                return self.drop_deleted(at).await;
            }
            Contents::Unversioned => self.prepare().await?,
            _ => {}
        }
        let deleted = DateTime::from_system_time(wall_clock());
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

    /// Drops the collection unless the queue is used again.
    async fn drop_deleted(&self, at: DateTime) -> Result<(), StoreError> {
        let filter = doc! { "_id": inspect::id(), DELETED: at };
        let mark = doc! { "q": filter, "u": { "$set": { DROPPING: true } } };
        match self.update_repeatedly(vec![mark]).await? {
            0 => Ok(()),
            _ => self.drop_collection().await,
        }
    }
}

fn is_long_ago(at: DateTime) -> bool {
    let since = wall_clock().duration_since(at.to_system_time());
    since.is_ok_and(|since| since > LONG_AGO)
}

#[allow(clippy::disallowed_methods)] // other instances look again in real time, whatever the clock
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
