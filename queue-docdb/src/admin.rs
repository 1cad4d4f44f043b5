//! Administration: peek, purge, dead letters, redrive, delete.

use mongodb::bson::{Bson, DateTime, Document, RawDocument, doc};
use queue_api::{
    DeadLetter, DeadLetterPage, MessageId, MessageState, PeekedMessage, Purge, Redrive,
};

use crate::{
    collection::{Query, QueueCollection},
    document,
    error::StoreError,
    index::Index,
    stats::{dead_letters_after, live},
};

/// How many messages one command removes or redrives. Each such chunk has the operation timeout.
const CHUNK: usize = 1000;

impl QueueCollection {
    pub(crate) async fn peek(&self, max: usize) -> Result<Vec<PeekedMessage>, StoreError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let now = self.now().await;
        let query = Query::in_order_of(Index::Claim, live(), max);
        let found = self.find(query, |document| peeked(document, now)).await?;
        Ok(found.into_iter().flatten().collect())
    }

    pub(crate) async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        let (index, mut filter) = match what {
            Purge::Live => (Index::Claim, live()),
            Purge::Dead => (Index::DeadLetters, dead_letters_after("")),
        };
        let mut purged = 0;
        let mut before = Vec::new();
        loop {
            let step = self.next_step();
            let query = Query::in_order_of(index, filter.clone(), CHUNK).with_projection(
                doc! { "visible_at": 1, "dead.id": 1 }, // and the `_id`
            );
            let found = step
                .find(query, |document| {
                    (document::any_id(document), filter_after(what, document))
                })
                .await?;
            let (found_ids, mut next): (Vec<_>, Vec<_>) = found.into_iter().unzip();
            let ids: Vec<Bson> = found_ids.iter().flatten().cloned().collect();
            // A message that changed its state meanwhile stays, for example after a redrive.
            let is_dead = matches!(what, Purge::Dead);
            let chunk = doc! { "_id": { "$in": ids }, "dead": { "$exists": is_dead } };
            // Without a majority, this is an error: a failover may undo the deletes.
            purged += step.delete(vec![doc! { "q": chunk, "limit": 0 }]).await?;
            if found_ids.len() < CHUNK {
                return Ok(purged);
            }
            // The same ones again cannot be deleted, so they are skipped. A count of 0 does not
            // show that: another purge may have been faster.
            if found_ids == before {
                match next.pop().flatten() {
                    Some(next) => filter = next,
                    None => return Ok(purged),
                }
            }
            before = found_ids;
        }
    }

    pub(crate) async fn dead_letters(
        &self,
        page: &DeadLetterPage,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters: Vec<DeadLetter> = Vec::new();
        let mut after = page
            .after()
            .map_or(String::new(), |id| id.as_str().to_owned());
        while letters.len() < page.max() {
            let wanted = page.max() - letters.len();
            let query = Query::in_order_of(Index::DeadLetters, dead_letters_after(&after), wanted);
            let found = self
                .find(query, |document| {
                    (dead_id(document), document::read_dead(document))
                })
                .await?;
            let is_last = found.len() < wanted;
            // Damaged ones are not listed, so there may be room for more.
            let last = found.last().and_then(|(id, _)| id.clone());
            letters.extend(found.into_iter().filter_map(|(_, letter)| letter));
            match last {
                Some(last) if !is_last => after = last,
                _ => break,
            }
        }
        Ok(letters)
    }

    pub(crate) async fn redrive(&self, which: &Redrive) -> Result<u64, StoreError> {
        let redriven = match which {
            Redrive::All => self.redrive_all().await,
            Redrive::Ids(ids) => self.redrive_ids(ids).await,
        };
        self.state.changed.notify_waiters();
        redriven
    }

    async fn redrive_ids(&self, ids: &[MessageId]) -> Result<u64, StoreError> {
        let mut redriven = 0;
        for chunk in ids.chunks(CHUNK) {
            let ids: Vec<&str> = chunk.iter().map(MessageId::as_str).collect();
            let filter = doc! { "dead.id": { "$exists": true, "$in": ids } };
            redriven += self.next_step().redrive_chunk(filter).await?.redriven;
        }
        Ok(redriven)
    }

    /// Redrives in one pass, by id. A damaged message becomes a dead letter again at once, so
    /// redriving until none is left might never end.
    async fn redrive_all(&self) -> Result<u64, StoreError> {
        let mut redriven = 0;
        let mut after = String::new();
        loop {
            let step = self.next_step();
            let chunk = step.redrive_chunk(dead_letters_after(&after)).await?;
            redriven += chunk.redriven;
            match chunk.last {
                Some(last) => after = last,
                None => return Ok(redriven),
            }
        }
    }

    /// Redrives the first dead letters that `filter` selects.
    async fn redrive_chunk(&self, filter: Document) -> Result<Chunk, StoreError> {
        let query = Query::in_order_of(Index::DeadLetters, filter, CHUNK)
            .with_projection(doc! { "dead.id": 1 });
        let found = self
            .find(query, |document| {
                (document::any_id(document), dead_id(document))
            })
            .await?;
        // The last ones may have no readable id.
        let last = found.iter().rev().find_map(|(_, dead_id)| dead_id.clone());
        let ids: Vec<Bson> = found.into_iter().filter_map(|(id, _)| id).collect();
        if ids.is_empty() {
            return Ok(Chunk { redriven: 0, last });
        }
        let filter = doc! { "_id": { "$in": ids }, "dead.id": { "$exists": true } };
        let update = doc! {
            "$set": { "visible_at": self.now().await, "attempts": 0_i64 },
            "$unset": { "dead": "" },
        };
        let update = vec![doc! { "q": filter, "u": update, "multi": true }];
        let redriven = self.update(update).await?;
        Ok(Chunk { redriven, last })
    }

    pub(crate) async fn drop_collection(&self) -> Result<(), StoreError> {
        self.state.indexes.forget();
        let mut retries = self.deadline.retries();
        loop {
            match retries.run(self.messages.drop()).await {
                Ok(()) => return Ok(()),
                Err(error) => retries.after(error).await?,
            }
        }
    }
}

/// One chunk of a redrive.
struct Chunk {
    redriven: u64,
    /// The last id; `None` if there were no more dead letters.
    last: Option<String>,
}

/// Selects what a purge finds after this document.
fn filter_after(what: Purge, document: &RawDocument) -> Option<Document> {
    match what {
        Purge::Live => {
            let time = document::date(document, "visible_at")?;
            Some(doc! { "visible_at": { "$gt": time } })
        }
        Purge::Dead => Some(dead_letters_after(&dead_id(document)?)),
    }
}

fn dead_id(document: &RawDocument) -> Option<String> {
    let dead = document.get_document("dead").ok()?;
    Some(dead.get_str("id").ok()?.to_owned())
}

/// `None` for a damaged document. The next lease call makes it a dead letter.
fn peeked(document: &RawDocument, now: DateTime) -> Option<PeekedMessage> {
    let ready_at = document::date(document, "visible_at")?;
    let stored = document::read(document).ok()?;
    let state = if ready_at <= now {
        MessageState::Ready
    } else if document::uuid(document, "lease").is_some() {
        MessageState::Leased
    } else {
        MessageState::Delayed
    };
    Some(PeekedMessage {
        id: stored.id,
        payload: stored.payload,
        headers: stored.headers,
        attempts: stored.attempts,
        enqueued_at: stored.enqueued_at,
        state,
        ready_at: ready_at.to_system_time(),
    })
}
