//! Administration: purge and redrive.

use std::collections::BTreeMap;

use mongodb::bson::{DateTime, RawDocument, doc};
use queue_api::{MessageId, Purge, Redrive};

use super::{settle, stats::live};
use crate::{
    document::{
        encode::dead_time,
        entry::Entry,
        fields::{DEAD_KEY, ENQUEUED_AT, ID, MESSAGES, PARTED, VISIBLE_AT},
        instant,
        stored::Stored,
    },
    store::{
        collection::{Query, QueueCollection, unchanged},
        error::StoreError,
        index::Index,
        inspect,
        set_aside::{Unreadable, are_set_aside},
        write::{To, Write, are_at, new_addend, update_statements},
        written::Trace,
    },
};

/// How many entries one command changes. Each such chunk has the operation timeout.
const CHUNK: usize = 1000;

/// In milliseconds. The times of two processes differ by at most a round trip to the server.
const PURGE_MARGIN: i64 = 1000;

/// In milliseconds: a day.
const LONGEST_PURGE: i64 = 24 * 3600 * 1000;

/// How often in a row a chunk may be changed by others first. Each takes two round trips.
const MOST_LOST: u32 = 100;

/// What a chunk came to.
struct Chunk {
    /// Messages that were changed.
    changed: u64,
    /// Whether others have changed some of its entries first.
    is_lost: bool,
    /// Whether some of its documents could not be read. The next look does not find them.
    is_set_aside: bool,
    found: usize,
    /// The last place in the list of dead letters.
    last: Option<String>,
}

impl QueueCollection {
    pub(crate) async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        // What comes later stays, or the purge might never end.
        let began = self.now().await;
        let end = instant::after(began, PURGE_MARGIN);
        let mut purged = self.purge_once(&what, began, end).await?;
        let mut step = self.next_step();
        let mut retries = step.deadline.retries();
        loop {
            // A failover may undo what the last look showed: that another purge has removed the rest.
            let version = unchanged(doc! { ID: inspect::id() });
            match step.update_again(vec![version], &retries).await {
                Ok(_) => return Ok(purged),
                Err(error) => retries.after(error).await?,
            }
            // It may be another server that answers now.
            let more = self.purge_once(&what, began, end).await?;
            if more > 0 {
                purged += more;
                step = self.next_step();
                retries = step.deadline.retries();
            }
        }
    }

    async fn purge_once(
        &self,
        what: &Purge,
        began: DateTime,
        end: DateTime,
    ) -> Result<u64, StoreError> {
        match what {
            Purge::Live => {
                let mut filter = live();
                // A time that no purge lasts to is damaged, and so is an array.
                let later = doc! { "$gt": end, "$lt": instant::after(began, LONGEST_PURGE) };
                let is_array = format!("{ENQUEUED_AT}.0");
                let later = doc! { ENQUEUED_AT: later, is_array: { "$exists": false } };
                filter.insert("$nor", vec![later]);
                let query = || Query::in_order_of(Index::Claim, filter.clone(), CHUNK);
                self.purge_live(query).await
            }
            Purge::Dead => {
                let removed = self.change_dead(Some(end), |entry, number| {
                    entry.remove(number);
                    true
                });
                Ok(removed.await? + self.purge_set_aside().await?)
            }
        }
    }

    async fn purge_live(&self, query: impl Fn() -> Query) -> Result<u64, StoreError> {
        let (mut purged, mut lost) = (0, 0);
        loop {
            let remove = |entry: &mut Entry, _: &Stored| {
                let live = entry.parts.iter().filter(|part| part.ready_at().is_some());
                let numbers: Vec<usize> = live.flat_map(|part| part.numbers.clone()).collect();
                for number in &numbers {
                    entry.remove(*number);
                }
                numbers.len()
            };
            let chunk = self.next_step().change_chunk(query(), remove).await?;
            purged += chunk.changed;
            if chunk.found < CHUNK && !chunk.is_lost {
                return Ok(purged);
            }
            lost = match chunk.changed > 0 || chunk.is_set_aside {
                true => 0,
                false => lost + 1,
            };
            if lost == MOST_LOST {
                return Err(StoreError::Uncertain);
            }
        }
    }

    async fn purge_set_aside(&self) -> Result<u64, StoreError> {
        self.set_aside_hidden().await?;
        // The letters before may have taken longer than one step.
        self.next_step()
            .delete(vec![doc! { "q": are_set_aside(), "limit": 0 }])
            .await
    }

    /// Sets parted entries aside that neither a claim nor the list of dead letters finds. No call leaves
    /// one, but stats count it.
    async fn set_aside_hidden(&self) -> Result<(), StoreError> {
        let no_time = doc! { "$exists": false };
        let no_place = doc! { "$not": { "$type": "string" } };
        let filter = doc! { PARTED: true, VISIBLE_AT: no_time, DEAD_KEY: no_place };
        loop {
            let query = Query::in_order_of(Index::Parted, filter.clone(), CHUNK);
            let chunk = self.next_step().change_chunk(query, |_, _| 0).await?;
            if !chunk.is_set_aside || chunk.found < CHUNK {
                return Ok(());
            }
        }
    }

    /// Changes dead letters in one pass through their list, up to those that died at `end`.
    async fn change_dead(
        &self,
        end: Option<DateTime>,
        change: impl Fn(&mut Entry, usize) -> bool,
    ) -> Result<u64, StoreError> {
        let (mut changed, mut lost) = (0, 0);
        let mut after = None;
        loop {
            let mut keys = doc! { "$exists": true };
            if let Some(after) = &after {
                keys.insert("$gt", after);
            }
            if let Some(end) = end {
                // A time that no purge lasts to is damaged.
                let [end, never] = [end, instant::after(end, LONGEST_PURGE)]
                    .map(|time| dead_time(time.timestamp_millis()));
                keys.insert("$not", doc! { "$gte": end, "$lt": never });
            }
            let query = Query::in_order_of(Index::DeadLetters, doc! { DEAD_KEY: keys }, CHUNK);
            let change = |entry: &mut Entry, _: &Stored| {
                let numbers = dead_numbers(entry);
                numbers
                    .into_iter()
                    .filter(|&number| change(entry, number))
                    .count()
            };
            let chunk = self.next_step().change_chunk(query, change).await?;
            changed += chunk.changed;
            lost = match chunk.changed > 0 || chunk.is_set_aside {
                true => 0,
                false => lost + 1,
            };
            match chunk.last {
                _ if lost == MOST_LOST => return Err(StoreError::Uncertain),
                _ if chunk.is_lost || chunk.is_set_aside => {}
                Some(last) if chunk.found == CHUNK => (after, lost) = (Some(last), 0),
                _ => return Ok(changed),
            }
        }
    }

    /// Changes the entries that a query finds. `change` returns how many messages it concerns.
    async fn change_chunk(
        &self,
        query: Query,
        change: impl Fn(&mut Entry, &Stored) -> usize,
    ) -> Result<Chunk, StoreError> {
        let query = query.with_projection(doc! { MESSAGES: 0 });
        let read = |found: &RawDocument| {
            Stored::read(found).map_err(|damage| Unreadable::new(found, damage))
        };
        let found = self.find(query, read).await?;
        let mut chunk = Chunk {
            changed: 0,
            is_lost: false,
            is_set_aside: false,
            found: found.len(),
            last: None,
        };
        // The answer to a command is only a number, so each command has entries of which equally
        // many messages are changed.
        let mut commands: BTreeMap<(usize, bool), Vec<Write>> = BTreeMap::new();
        let mut unreadable = Vec::new();
        for found in found {
            match found {
                Ok(stored) => {
                    let mut after = stored.entry.clone();
                    let messages = change(&mut after, &stored);
                    if messages > 0 {
                        let write = settle::write(&stored, &after, Trace::Ended(Vec::new()));
                        let is_delete = write.to == To::Deleted;
                        commands
                            .entry((messages, is_delete))
                            .or_default()
                            .push(write);
                    }
                    chunk.last = stored.dead_key.or(chunk.last);
                }
                Err(document) => unreadable.push(document),
            }
        }
        chunk.is_set_aside = self.set_aside(unreadable).await? > 0;
        for ((messages, is_delete), writes) in commands {
            // Without a majority, this is an error: a failover may undo it.
            let written = match is_delete {
                true => {
                    let seen = writes.iter().map(|write| (write.id, write.seen));
                    self.delete(vec![doc! { "q": are_at(seen), "limit": 0 }])
                        .await?
                }
                false => {
                    let writes: Vec<&Write> = writes.iter().collect();
                    self.update(update_statements(&writes, new_addend()))
                        .await?
                }
            };
            chunk.is_lost |= written < writes.len() as u64;
            chunk.changed += written * messages as u64;
        }
        Ok(chunk)
    }

    pub(crate) async fn redrive(&self, which: &Redrive) -> Result<u64, StoreError> {
        let now = self.now().await.timestamp_millis();
        let redriven = match which {
            Redrive::All => {
                self.change_dead(None, |entry, number| entry.redrive(number, now))
                    .await
            }
            Redrive::Ids(ids) => self.redrive_ids(ids, now).await,
        };
        self.state.shared_poll.notify();
        redriven
    }

    async fn redrive_ids(&self, ids: &[MessageId], now: i64) -> Result<u64, StoreError> {
        let mut redriven = 0;
        for chunk in ids.chunks(CHUNK) {
            let ids: Vec<&MessageId> = chunk.iter().collect();
            let mut lost = 0;
            loop {
                let change = |entry: &mut Entry, stored: &Stored| {
                    let numbers = ids.iter().filter_map(|id| stored.number(id));
                    numbers.filter(|&number| entry.redrive(number, now)).count()
                };
                let chunk = self
                    .next_step()
                    .change_chunk(self.holders(&ids), change)
                    .await?;
                redriven += chunk.changed;
                lost += 1;
                match chunk.is_lost {
                    false => break,
                    true if lost == MOST_LOST => return Err(StoreError::Uncertain),
                    true => {}
                }
            }
        }
        Ok(redriven)
    }
}

/// The numbers of its dead letters, in ascending order.
pub(super) fn dead_numbers(entry: &Entry) -> Vec<usize> {
    let dead = entry.parts.iter().filter(|part| part.dead_at().is_some());
    let mut numbers: Vec<usize> = dead.flat_map(|part| part.numbers.clone()).collect();
    numbers.sort_unstable();
    numbers
}
