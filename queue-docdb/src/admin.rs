//! Administration: peek, purge, dead letters, redrive, delete.

use mongodb::bson::{DateTime, Document, RawDocument, doc};
use queue_api::{
    DeadLetterPage, MessageId, MessageState, PageOptions, PageToken, PeekedMessage, Purge, Redrive,
};

use crate::{
    codes::NAMESPACE_NOT_FOUND,
    collection::{Query, QueueCollection},
    document,
    error::StoreError,
    index::Index,
    inspect::{self, Contents},
    instant,
    key::Key,
    retry::Retries,
    stats::{dead_letters_after, live},
};

/// How many messages one command removes or redrives. Each such chunk has the operation timeout.
const CHUNK: usize = 1000;

/// In milliseconds. The times of two processes differ by at most a round trip to the server.
const PURGE_MARGIN: i64 = 1000;

/// In milliseconds: a day.
const LONGEST_PURGE: i64 = 24 * 3600 * 1000;

impl QueueCollection {
    pub(crate) async fn peek(&self, max: usize) -> Result<Vec<PeekedMessage>, StoreError> {
        let now = self.now().await;
        let query = |limit| Query::in_order_of(Index::Claim, live(), limit);
        self.find_readable(query, max, |document| peeked(document, now))
            .await
    }

    pub(crate) async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        let (index, mut filter, since) = match what {
            Purge::Live => (Index::Claim, live(), "enqueued_at"),
            Purge::Dead => (Index::DeadLetters, dead_letters_after(""), "dead.at"),
        };
        // What comes later stays, or the purge might never end. A damaged message may have any
        // value there, and is removed.
        let began = self.now().await;
        let later = doc! {
            "$gt": instant::after(began, PURGE_MARGIN),
            "$lt": instant::after(began, LONGEST_PURGE),
        };
        let is_array = format!("{since}.0");
        let later = doc! { since: later, is_array: { "$exists": false } };
        filter.insert("$nor", vec![later]);
        let mut purged = 0;
        let mut before = Vec::new();
        loop {
            let step = self.next_step();
            let query =
                Query::in_order_of(index, filter.clone(), CHUNK).with_projection(doc! { "_id": 1 });
            let found = step.find(query, Key::of).await?;
            if !found.is_empty() && found == before {
                let message = format!("{} documents are still there after a delete", found.len());
                return Err(StoreError::Unreadable(message));
            }
            // A message that changed its state meanwhile stays, for example after a redrive.
            // In a `$nor`, because a delete must not use the index on time.
            let is_still = match what {
                Purge::Live => doc! { "$nor": [{ "visible_at": { "$exists": false } }] },
                Purge::Dead => doc! { "dead": { "$exists": true } },
            };
            let deletions = Key::conditions(found.iter().cloned()).into_iter();
            let deletions = deletions.map(|condition| {
                let mut filter = doc! { "_id": condition };
                filter.extend(is_still.clone());
                doc! { "q": filter, "limit": 0 }
            });
            // Without a majority, this is an error: a failover may undo the deletes.
            purged += step.delete(deletions.collect()).await?;
            if found.len() < CHUNK {
                return Ok(purged);
            }
            before = found;
        }
    }

    /// A token is the last id of the page before. A full page may be the last one, so the page after
    /// it may be empty.
    pub(crate) async fn dead_letters(
        &self,
        page: &PageOptions,
    ) -> Result<DeadLetterPage, StoreError> {
        let filter = dead_letters_after(page.token().map_or("", PageToken::as_str));
        let query = |limit| {
            // Without what others have stored there, which may be large or not readable.
            let fields =
                doc! { "dead": 1, "payload": 1, "headers": 1, "attempts": 1, "enqueued_at": 1 };
            Query::in_order_of(Index::DeadLetters, filter.clone(), limit).with_projection(fields)
        };
        let letters = self
            .find_readable(query, page.max(), document::read_dead)
            .await?;
        let last = letters.last().filter(|_| letters.len() == page.max());
        let next = last.map(|letter| PageToken::new(letter.id.as_str()));
        Ok(DeadLetterPage::new(letters).with_next(next))
    }

    pub(crate) async fn redrive(&self, which: &Redrive) -> Result<u64, StoreError> {
        let redriven = match which {
            Redrive::All => self.redrive_all().await,
            Redrive::Ids(ids) => self.redrive_ids(ids).await,
        };
        self.state.shared_poll.notify();
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
                // None had a readable id. If they become dead letters again, they have one.
                None if chunk.redriven > 0 => {}
                None => return Ok(redriven),
            }
        }
    }

    /// Redrives the first dead letters that `filter` selects.
    async fn redrive_chunk(&self, filter: Document) -> Result<Chunk, StoreError> {
        let query = Query::in_order_of(Index::DeadLetters, filter.clone(), CHUNK)
            .with_projection(doc! { "dead.id": 1 });
        let read = |document: &RawDocument| (Key::of(document), dead_id(document));
        let (keys, dead_ids): (Vec<_>, Vec<_>) = self.find(query, read).await?.into_iter().unzip();
        let last = dead_ids.into_iter().rev().flatten().next();
        if keys.is_empty() {
            return Ok(Chunk { redriven: 0, last });
        }
        let update = doc! {
            "$set": { "visible_at": self.now().await, "attempts": 0_i64 },
            "$unset": { "dead": "" },
        };
        let statements = Key::conditions(keys).into_iter().map(|condition| {
            let mut filter = filter.clone();
            filter.insert("_id", condition);
            doc! { "q": filter, "u": update.clone(), "multi": true }
        });
        let redriven = self.update(statements.collect()).await?;
        Ok(Chunk { redriven, last })
    }

    /// Drops the collection if it is a queue, or one whose creation was interrupted.
    pub(crate) async fn delete_queue(&self) -> Result<(), StoreError> {
        self.state.knowledge.forget();
        if self.check_now().await? == Contents::Empty {
            let indexes = self.indexes().await?;
            if !Index::Claim.is_among(&indexes, self.messages.name())? {
                return Ok(());
            }
        }
        self.state.knowledge.forget();
        let mut retries = self.deadline.retries();
        loop {
            match self.drop_collection(&retries).await {
                Ok(true) => return Ok(()),
                // An earlier drop, of this call or another, may lack a majority, and a failover
                // undoes it. A write to a majority tells, even one that changes nothing.
                Ok(false) => {
                    let version = doc! { "_id": inspect::id() };
                    if self.held_by_majority([version]).await? == 0 {
                        return Ok(());
                    }
                }
                Err(error) => retries.after(error).await?,
            }
        }
    }

    /// Returns whether there was a collection, which a majority has dropped now.
    async fn drop_collection(&self, tries: &Retries) -> Result<bool, StoreError> {
        let command = doc! {
            "drop": self.messages.name(),
            "writeConcern": { "w": "majority" },
        };
        match tries.run(self.database.run_command(command)).await {
            // Since MongoDB 7.0, a missing collection is no error.
            Ok(reply) => {
                let has_majority = !reply.contains_key("writeConcernError");
                Ok(has_majority && reply.contains_key("nIndexesWas"))
            }
            Err(error) if error.has_code(NAMESPACE_NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// One chunk of a redrive.
struct Chunk {
    redriven: u64,
    /// The last id that can be read.
    last: Option<String>,
}

fn dead_id(document: &RawDocument) -> Option<String> {
    let dead = document.get_document("dead").ok()?;
    Some(dead.get_str("id").ok()?.to_owned())
}

/// `None` for a damaged document. The next lease call makes it a dead letter.
fn peeked(document: &RawDocument, now: DateTime) -> Option<PeekedMessage> {
    let ready_at = document::ready_at(document)?;
    let stored = document::read(document).ok()?;
    let state = if ready_at <= now {
        MessageState::Ready
    } else if document::uuid(document, "lease").is_some() {
        MessageState::Leased
    } else {
        MessageState::Delayed
    };
    Some(
        PeekedMessage::new(stored.id, stored.payload, state)
            .with_headers(stored.headers)
            .with_attempts(stored.attempts)
            .with_enqueued_at(stored.enqueued_at)
            .with_ready_at(ready_at.to_system_time()),
    )
}
