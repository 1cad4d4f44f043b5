//! Enqueue: one insert for as many messages as fit in a command.

use std::collections::HashSet;

use mongodb::{
    bson::RawDocumentBuf,
    error::{Error as DriverError, ErrorKind as DriverKind, InsertManyError},
    options::InsertManyOptions,
};
use queue_api::{EnqueueOutcome, NewMessage};

use crate::{
    collection::{QueueCollection, run},
    document,
    error::{DUPLICATE_KEY, Refusal, StoreError},
};

/// When a command is full, in bytes: well below the 48 MB that the protocol allows, so that
/// each part of a batch of large messages has the time of an operation for itself, and no
/// more than this is held in memory twice.
const FULL: usize = 16 << 20;

impl QueueCollection {
    pub(crate) async fn enqueue(
        &self,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>, StoreError> {
        if !self.state.indexes.is_made() {
            self.ensure_indexes().await?;
        }
        // Of two equal ids in a batch the first is stored. Which of them an unordered insert
        // stores is the server's choice, so the second is not sent at all.
        let mut ids = HashSet::with_capacity(messages.len());
        let mut outcomes = vec![EnqueueOutcome::Duplicate; messages.len()];
        let first_uses = (0..messages.len()).filter(|&index| ids.insert(&messages[index].id));

        let now = self.now().await;
        let mut part = Part::default();
        for index in first_uses {
            let message = &messages[index];
            let weight = message.payload.len() + message.header_bytes();
            if part.weight + weight > FULL && !part.documents.is_empty() {
                self.insert(std::mem::take(&mut part), &mut outcomes)
                    .await?;
            }
            part.weight += weight;
            part.indexes.push(index);
            part.documents.push(document::write(message, now));
        }
        if !part.documents.is_empty() {
            self.insert(part, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    async fn insert(&self, part: Part, outcomes: &mut [EnqueueOutcome]) -> Result<(), StoreError> {
        let mut options = InsertManyOptions::default();
        options.ordered = Some(false);
        let insert = self
            .messages
            .insert_many(&part.documents)
            .with_options(options);
        let duplicates = match run(self.timeout, insert).await {
            Ok(_) => HashSet::new(),
            Err(StoreError::Driver(error)) => duplicates(error)?,
            Err(error) => return Err(error),
        };
        for (position, &index) in part.indexes.iter().enumerate() {
            if !duplicates.contains(&position) {
                outcomes[index] = EnqueueOutcome::Stored;
            }
        }
        self.state.changed.notify_waiters();
        Ok(())
    }
}

/// Messages that go into one command.
#[derive(Default)]
struct Part {
    weight: usize,
    /// Where in the batch they are.
    indexes: Vec<usize>,
    documents: Vec<RawDocumentBuf>,
}

/// The positions that failed because their ids are stored already, if nothing else failed.
fn duplicates(error: DriverError) -> Result<HashSet<usize>, StoreError> {
    let DriverKind::InsertMany(InsertManyError {
        write_errors: Some(refused),
        write_concern_error: None,
        ..
    }) = &*error.kind
    else {
        return Err(error.into());
    };
    if let Some(other) = refused.iter().find(|refusal| refusal.code != DUPLICATE_KEY) {
        return Err(StoreError::Refused(Refusal {
            code: other.code,
            message: other.message.clone(),
        }));
    }
    Ok(refused.iter().map(|refusal| refusal.index).collect())
}
