//! The two indexes of a queue, made on first use.

use std::time::Duration;

use mongodb::bson::{Document, doc};

use crate::{collection::QueueCollection, error::StoreError};

/// An index of a queue's collection.
///
/// Hints name it by its keys: elastic clusters take no other kind of hint. Hints are given
/// at all because the planner of DocumentDB may scan a small collection in spite of an index,
/// and uses a sparse one only for `$exists`, or when it is told to.
/// <https://docs.aws.amazon.com/documentdb/latest/developerguide/best_practices.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// Live messages in order of ready time, and of turn within a millisecond.
    Claim,
    /// Dead letters in order of id; sparse, so that live messages cost it nothing.
    DeadLetters,
}

impl Index {
    /// Its keys, which are also the order that it gives.
    pub(crate) fn keys(self) -> Document {
        match self {
            Self::Claim => doc! { "visible_at": 1, "turn": 1 },
            Self::DeadLetters => doc! { "dead.id": 1 },
        }
    }

    fn specification(self) -> Document {
        // DocumentDB locks the collection for a build that is not in the background.
        // https://docs.aws.amazon.com/documentdb/latest/developerguide/user_diagnostics.html
        match self {
            Self::Claim => doc! {
                "key": self.keys(), "name": "visible_at_1_turn_1", "background": true,
            },
            Self::DeadLetters => doc! {
                "key": self.keys(), "name": "dead.id_1", "background": true, "sparse": true,
            },
        }
    }
}

/// How often a build is tried: DocumentDB fails it while another process builds.
const TRIES: u32 = 5;

impl QueueCollection {
    /// Makes the indexes, and with them the collection, unless this instance has done so. The
    /// version comes first, so that no index is made on what is not ours.
    pub(crate) async fn ensure_indexes(&self) -> Result<(), StoreError> {
        if self.state.indexes.is_made() {
            return Ok(());
        }
        let _building = self.state.indexes.building.lock().await;
        // Somebody may have made them while this waited.
        if self.state.indexes.is_made() {
            return Ok(());
        }
        self.claim_schema().await?;
        for index in [Index::Claim, Index::DeadLetters] {
            self.make_index(index).await?;
        }
        self.state.indexes.remember();
        Ok(())
    }

    /// Makes the indexes again: a hint failed, so somebody deleted the queue meanwhile, or made
    /// it that of another version.
    pub(crate) async fn restore_indexes(&self) -> Result<(), StoreError> {
        self.state.indexes.forget();
        self.state.schema.forget();
        self.ensure_indexes().await
    }

    async fn make_index(&self, index: Index) -> Result<(), StoreError> {
        let command = doc! {
            "createIndexes": self.messages.name(),
            "indexes": [index.specification()],
        };
        let mut tries = 1;
        let mut retries = self.deadline.retries();
        loop {
            let sent = self.database.run_command(command.clone());
            match self.deadline.run(sent).await {
                Ok(_) => return Ok(()),
                Err(error) if tries < TRIES && is_worth_a_retry(&error) => {
                    pause(Duration::from_millis(50 << tries)).await;
                    tries += 1;
                }
                Err(error) => retries.after(error).await?,
            }
        }
    }
}

/// No code is documented for "another build is running", so all that is no clear verdict
/// about this user or this connection is tried again.
fn is_worth_a_retry(error: &StoreError) -> bool {
    error.kind() == queue_api::ErrorKind::Internal
}

#[allow(clippy::disallowed_methods)] // waits for another process, whatever time it is here
async fn pause(duration: Duration) {
    tokio::time::sleep(duration.mul_f64(0.5 + fastrand::f64())).await;
}
