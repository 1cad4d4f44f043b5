//! Delete a queue: mark it as deleted, and remove its messages.
//!
//! The collection stays. Another instance may have found a queue there up to a minute ago, or may be
//! making one, and insert without another check. The server would then make a collection without the
//! unique index, which stores an id twice.

use std::time::Duration;

use mongodb::bson::{DateTime, doc};
use tokio::time::Instant;

use super::admin::{PURGE_MARGIN, enqueued_since};
use crate::store::{
    collection::QueueCollection,
    error::StoreError,
    inspect::{self, Contents, DELETED},
    pause::real_time,
    write_reply,
};

/// The longest pause at the end, in real time, because a test may stop the backend's clock.
const LONGEST_MARGIN: Duration = Duration::from_secs(1);

/// How often the removal of all messages is tried. Each has the operation timeout, and goes on where
/// the one before ended.
const MOST_TRIES: u32 = 100;

impl QueueCollection {
    pub(crate) async fn delete_queue(&self) -> Result<(), StoreError> {
        self.state.knowledge.forget();
        let is_there = !matches!(self.check_now().await?, Contents::Missing | Contents::Empty);
        let version = doc! { "_id": inspect::id() };
        // Without a majority, what was read may be old.
        if !is_there && self.held_by_majority(version.clone()).await? == 0 {
            return Ok(());
        }
        let deleted = self.now().await;
        let update = doc! { "$set": { DELETED: deleted } };
        let mark = doc! { "q": version, "u": update, "hint": { "_id": 1 } };
        // A mark may be written twice.
        self.update_repeatedly(vec![mark]).await?;
        self.state.knowledge.forget();
        self.remove_all(deleted).await
    }

    async fn remove_all(&self, deleted: DateTime) -> Result<(), StoreError> {
        // A try that was given up may go on. What came after the deletion is not its own.
        let later = enqueued_since(deleted);
        let all = doc! { "_id": { "$ne": inspect::id() }, "$nor": [later] };
        let removal = self.command("delete", vec![doc! { "q": all.clone(), "limit": 0 }]);
        let first = self.next_step();
        let first = first.within(first.deadline.of_first_try());
        if first.write(removal.clone()).await.is_ok() {
            return Ok(());
        }
        let mut tries = 1;
        loop {
            // Also if it removes nothing, the answer is that of a majority.
            let step = self.next_step();
            let removed = step.run(removal.clone(), write_reply::matched).await;
            let is_slow = matches!(removed, Err(StoreError::TimedOut(_)));
            // If nothing is left, only a majority is missing.
            if !is_slow || tries == MOST_TRIES || !self.next_step().has(all.clone()).await? {
                removed?;
                break;
            }
            tries += 1;
        }
        // A try that was given up may still arrive. It spares what is enqueued from then on.
        let spared = deleted.saturating_add_millis(PURGE_MARGIN + 1);
        tokio::select! {
            () = self.time.clock().sleep_until(spared.to_system_time()) => {}
            () = real_time(Instant::now() + LONGEST_MARGIN) => {}
        }
        Ok(())
    }
}
