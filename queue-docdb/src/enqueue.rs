//! Enqueue: one insert for as many messages as fit in a command.

use std::collections::{HashMap, HashSet};

use mongodb::{
    bson::{RawDocument, RawDocumentBuf, Uuid, doc},
    error::{Error as DriverError, ErrorKind as DriverKind, IndexedWriteError, InsertManyError},
};
use queue_api::{EnqueueOutcome, MessageId, NewMessage};

use crate::{
    collection::{Query, QueueCollection},
    document,
    error::{DUPLICATE_KEY, Effect, Refusal, StoreError},
};

/// When a command is full, in bytes: well below the 48 MB that the protocol allows, so that
/// no more than this is held in memory twice.
const FULL: usize = 16 << 20;

impl QueueCollection {
    pub(crate) async fn enqueue(
        &self,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>, StoreError> {
        self.ensure_indexes().await?;
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
            let turn = self.state.turns.next();
            part.documents.push(document::write(message, turn, now));
        }
        if !part.documents.is_empty() {
            self.insert(part, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    async fn insert(&self, part: Part, outcomes: &mut [EnqueueOutcome]) -> Result<(), StoreError> {
        let stored = self.store(&part).await;
        // Also after an error: some may have been stored.
        self.state.changed.notify_waiters();
        for position in stored? {
            outcomes[part.indexes[position]] = EnqueueOutcome::Stored;
        }
        Ok(())
    }

    /// Stores what is new, and says what that was, by position.
    ///
    /// An insert is only repeated for documents that are certainly not stored. Where an insert
    /// may have stored one, its absence proves nothing: it may have been delivered and acked by
    /// now, and to store it again would deliver it again. Only the caller may decide that.
    async fn store(&self, part: &Part) -> Result<Vec<usize>, StoreError> {
        let mut stored = Vec::new();
        let mut open: Vec<usize> = (0..part.documents.len()).collect();
        let mut retries = self.deadline.retries();
        loop {
            let error = match self.insert_once(part, &open).await {
                Ok(refused) => {
                    let new = open.iter().enumerate();
                    stored.extend(
                        new.filter(|(sent, _)| !refused.contains_key(sent))
                            .map(|(_, &position)| position),
                    );
                    let failed = refused
                        .into_iter()
                        .filter(|(_, refusal)| refusal.code != DUPLICATE_KEY);
                    let mut failed: Vec<(usize, Refusal)> = failed.collect();
                    let Some((_, first)) = failed.first().cloned() else {
                        return Ok(stored);
                    };
                    failed.sort_by_key(|(sent, _)| *sent);
                    open = failed.into_iter().map(|(sent, _)| open[sent]).collect();
                    // Refused one by one, so they were not stored.
                    retries.after(StoreError::Refused(first)).await?;
                    continue;
                }
                Err(error) => error,
            };
            let effect = error.effect();
            retries.after(error).await?;
            if effect == Effect::Unknown {
                let Some(found) = self.stored_by_this(part, &open).await? else {
                    return Err(retries.into_last());
                };
                stored.extend(found);
                return Ok(stored);
            }
        }
    }

    /// Which of these documents an insert of unknown outcome stored, by their births, once a
    /// majority has them. `None` where it cannot be told of all.
    async fn stored_by_this(
        &self,
        part: &Part,
        positions: &[usize],
    ) -> Result<Option<Vec<usize>>, StoreError> {
        self.confirm().await?;
        let identity = |document: &RawDocument| {
            Some((document::id(document)?, document::uuid(document, "birth")?))
        };
        let sent: Vec<(MessageId, Uuid)> = positions
            .iter()
            .filter_map(|&position| identity(&part.documents[position]))
            .collect();
        let ids: Vec<&str> = sent.iter().map(|(id, _)| id.as_str()).collect();
        let query = Query::by_ids(doc! { "_id": { "$in": ids } }, sent.len())
            .with_projection(doc! { "birth": 1 });
        let found = self.find(query, identity).await?;
        let found: HashMap<MessageId, Uuid> = found.into_iter().flatten().collect();
        if found.len() < positions.len() {
            return Ok(None);
        }
        let ours = positions.iter().zip(&sent);
        Ok(Some(
            ours.filter(|(_, (id, birth))| found.get(id) == Some(birth))
                .map(|(&position, _)| position)
                .collect(),
        ))
    }

    /// Inserts these documents and says which of them, in the order sent, were refused.
    async fn insert_once(
        &self,
        part: &Part,
        positions: &[usize],
    ) -> Result<HashMap<usize, Refusal>, StoreError> {
        let documents = positions.iter().map(|&position| &part.documents[position]);
        let insert = self.messages.insert_many(documents).ordered(false);
        match self.deadline.run(insert).await {
            Ok(_) => Ok(HashMap::new()),
            Err(StoreError::Driver(error)) => refused(error),
            Err(error) => Err(error),
        }
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

/// The documents that were refused one by one, if nothing else failed.
fn refused(error: DriverError) -> Result<HashMap<usize, Refusal>, StoreError> {
    let DriverKind::InsertMany(InsertManyError {
        write_errors: Some(refused),
        write_concern_error: None,
        ..
    }) = &*error.kind
    else {
        return Err(error.into());
    };
    let refusal = |each: &IndexedWriteError| Refusal {
        code: each.code,
        message: each.message.clone(),
    };
    Ok(refused
        .iter()
        .map(|each| (each.index, refusal(each)))
        .collect())
}
