//! Enqueue: one insert for as many messages as fit in a command.

use std::collections::HashSet;

use mongodb::bson::{RawDocumentBuf, doc};
use queue_api::{EnqueueOutcome, NewMessage};

use crate::{
    codes::DUPLICATE_KEY,
    collection::QueueCollection,
    document,
    error::{Effect, StoreError},
    insert::Inserted,
};

/// The most bytes of documents in a command. Servers accept a command of 16 MiB.
const FULL: usize = 15 << 20;

impl QueueCollection {
    pub(crate) async fn enqueue(
        &self,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>, StoreError> {
        self.prepare().await?;
        // Of two equal ids in a batch the first is stored. Which of them an unordered insert
        // stores is the server's choice, so the second is not sent at all.
        let mut ids = HashSet::with_capacity(messages.len());
        let mut outcomes = vec![EnqueueOutcome::Duplicate; messages.len()];
        let first_uses = (0..messages.len()).filter(|&index| ids.insert(&messages[index].id));

        let now = self.now().await;
        let mut part = Part::default();
        for index in first_uses {
            let turn = self.state.turns.next();
            let document = document::write(&messages[index], turn, now);
            let weight = document.as_bytes().len();
            if part.weight + weight > FULL {
                self.insert(std::mem::take(&mut part), &mut outcomes)
                    .await?;
            }
            part.weight += weight;
            part.indexes.push(index);
            part.documents.push(document);
        }
        self.insert(part, &mut outcomes).await?;
        Ok(outcomes)
    }

    async fn insert(&self, part: Part, outcomes: &mut [EnqueueOutcome]) -> Result<(), StoreError> {
        let stored = self.store(&part).await;
        // Also after an error: some may have been stored.
        self.state.shared_poll.notify();
        for position in stored? {
            outcomes[part.indexes[position]] = EnqueueOutcome::Stored;
        }
        Ok(())
    }

    /// Stores the new messages, and returns their positions.
    ///
    /// Only refused documents are sent again. If an answer was lost and a document is missing, a
    /// consumer may have acked it already. Storing it again would deliver it again, so the caller
    /// must decide.
    async fn store(&self, part: &Part) -> Result<Vec<usize>, StoreError> {
        let mut stored = Vec::new();
        let mut open: Vec<usize> = (0..part.documents.len()).collect();
        let mut retries = self.deadline.retries();
        while !open.is_empty() {
            let sent: Vec<_> = open.iter().map(|&at| &part.documents[at]).collect();
            let Inserted {
                refused,
                unconfirmed,
            } = match self.insert_once(&sent).await {
                Ok(inserted) => inserted,
                Err(error) if error.effect() == Effect::None => {
                    retries.after(error).await?;
                    continue;
                }
                Err(error) => {
                    retries.after(error).await?;
                    if !self.has_all(part, &open).await? {
                        return Err(retries.into_last());
                    }
                    stored.extend(open);
                    return Ok(stored);
                }
            };
            let (refused_ones, new): (Vec<_>, Vec<_>) = open
                .iter()
                .enumerate()
                .map(|(sent, &at)| (at, refused.get(&sent)))
                .partition(|(_, refusal)| refusal.is_some());
            let new: Vec<usize> = new.into_iter().map(|(at, _)| at).collect();
            if let Some(reason) = unconfirmed {
                let matched = new.len() as u64;
                let error = StoreError::Unconfirmed { matched, reason };
                retries.after(error).await?;
                if !self.has_all(part, &new).await? {
                    return Err(retries.into_last());
                }
                stored.extend(new);
                // A failover may undo the cause of a refusal, so the refused ones are sent again.
                open = refused_ones.into_iter().map(|(at, _)| at).collect();
                continue;
            }
            stored.extend(new);
            let (duplicates, failed): (Vec<_>, Vec<_>) = refused_ones
                .into_iter()
                .filter_map(|(at, refusal)| Some((at, refusal?)))
                .partition(|(_, refusal)| refusal.code == DUPLICATE_KEY);
            let duplicates = duplicates
                .into_iter()
                .map(|(at, refusal)| (&part.documents[at], refusal));
            self.check_duplicates(duplicates).await?;
            let first = failed.first().map(|(_, refusal)| (*refusal).clone());
            open = failed.into_iter().map(|(at, _)| at).collect();
            if let Some(first) = first {
                retries.after(StoreError::Refused(first)).await?;
            }
        }
        Ok(stored)
    }

    /// Whether a majority has all of these documents. If so, this call has stored them, because each
    /// birth is unique.
    async fn has_all(&self, part: &Part, positions: &[usize]) -> Result<bool, StoreError> {
        if positions.is_empty() {
            return Ok(true);
        }
        let documents = || positions.iter().map(|&at| &part.documents[at]);
        let ids: Vec<_> = documents().filter_map(|it| document::id(it)).collect();
        let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let births: Vec<_> = documents()
            .filter_map(|it| document::uuid(it, "birth"))
            .collect();
        let filter = doc! { "_id": { "$in": ids }, "birth": { "$in": births } };
        Ok(self.held_by_majority([filter]).await? == positions.len() as u64)
    }
}

/// The number of documents that fit into the next command, at least one.
pub(crate) fn first_part(documents: &[RawDocumentBuf]) -> usize {
    let mut weight = 0;
    let fits = |document: &&RawDocumentBuf| {
        weight += document.as_bytes().len();
        weight <= FULL
    };
    documents.iter().take_while(fits).count().max(1)
}

/// Messages that go into one command.
#[derive(Default)]
struct Part {
    weight: usize,
    /// Where in the batch they are.
    indexes: Vec<usize>,
    documents: Vec<RawDocumentBuf>,
}
