//! Administration: purge and redrive.

use std::{collections::BTreeMap, iter};

use mongodb::bson::{DateTime, Document, RawDocument, Uuid, doc};
use queue_api::{MessageId, Purge, Redrive};

use super::{settle, stats::live};
use crate::{
    document::{
        encode::dead_time,
        entry::Entry,
        fields::{DEAD_KEY, ENQUEUED_AT, MESSAGES, PARTED, VISIBLE_AT},
        instant,
        stored::Stored,
    },
    store::{
        collection::{Query, QueueCollection},
        error::StoreError,
        index::Index,
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
    /// Entries that it has left as they are, and that have dead letters.
    left_dead: Vec<(Uuid, i64)>,
}

/// What the rounds of a call came to.
#[derive(Default)]
struct Rounds {
    /// Messages that were changed.
    changed: u64,
    /// How many in a row have changed nothing, although something is left.
    lost: u32,
}

impl QueueCollection {
    pub(crate) async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        // What comes later stays, or the purge might never end.
        let began = self.now().await;
        let end = instant::after(began, PURGE_MARGIN);
        let mut rounds = Rounds::default();
        match what {
            Purge::Live => {
                let mut filter = live();
                // A time that no purge lasts to is damaged, and so is an array.
                let later = doc! { "$gt": end, "$lt": instant::after(began, LONGEST_PURGE) };
                let is_array = format!("{ENQUEUED_AT}.0");
                let later = doc! { ENQUEUED_AT: later, is_array: { "$exists": false } };
                filter.insert("$nor", vec![later]);
                let query = || Query::in_order_of(Index::Claim, filter.clone(), CHUNK);
                loop {
                    let removed = self.purge_live(query).await?;
                    if self.are_none_left(&filter, removed, &mut rounds).await? {
                        return Ok(rounds.changed);
                    }
                }
            }
            Purge::Dead => {
                let remove = |entry: &mut Entry, number: usize| {
                    entry.remove(number);
                    true
                };
                let filter = doc! { DEAD_KEY: dead_until(end) };
                loop {
                    let removed = self.change_dead(Some(end), remove).await?;
                    if self.are_none_left(&filter, removed, &mut rounds).await? {
                        return Ok(rounds.changed + self.purge_set_aside().await?);
                    }
                }
            }
        }
    }

    /// Whether a majority has none of the entries that the filter selects, after a round that changed so
    /// many messages.
    ///
    /// A failover may undo what the round's look showed: that another process has changed the rest, or
    /// this one in an earlier call.
    async fn are_none_left(
        &self,
        filter: &Document,
        changed: u64,
        rounds: &mut Rounds,
    ) -> Result<bool, StoreError> {
        rounds.changed += changed;
        rounds.lost = match changed > 0 {
            true => 0,
            false => rounds.lost + 1,
        };
        let step = self.next_step();
        match step.matched_by_majority(vec![filter.clone()]).await? {
            0 => Ok(true),
            _ if rounds.lost == MOST_LOST => Err(StoreError::Uncertain),
            _ => Ok(false),
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
            let mut keys = end.map_or_else(|| doc! { "$exists": true }, dead_until);
            if let Some(after) = &after {
                keys.insert("$gt", after);
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
            left_dead: Vec::new(),
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
                    } else if stored.dead_key.is_some() {
                        chunk.left_dead.push((stored.id, stored.rev));
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
        let began = self.now().await;
        let now = began.timestamp_millis();
        let redriven = match which {
            Redrive::All => self.redrive_all(began).await,
            Redrive::Ids(ids) => self.redrive_ids(ids, now).await,
        };
        self.state.shared_poll.notify();
        redriven
    }

    async fn redrive_all(&self, began: DateTime) -> Result<u64, StoreError> {
        let now = began.timestamp_millis();
        let filter = doc! { DEAD_KEY: dead_until(instant::after(began, PURGE_MARGIN)) };
        let mut rounds = Rounds::default();
        loop {
            let redrive = |entry: &mut Entry, number| entry.redrive(number, now);
            let redriven = self.change_dead(None, redrive).await?;
            if self.are_none_left(&filter, redriven, &mut rounds).await? {
                return Ok(rounds.changed);
            }
        }
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
                if !chunk.is_lost && self.are_redriven(&ids, &chunk).await? {
                    break;
                }
                lost += 1;
                if lost == MOST_LOST {
                    return Err(StoreError::Uncertain);
                }
            }
        }
        Ok(redriven)
    }

    /// Returns whether in a majority no dead letter has one of these ids, as the chunk of their entries
    /// shows it.
    async fn are_redriven(&self, ids: &[&MessageId], chunk: &Chunk) -> Result<bool, StoreError> {
        let (mut holders, _) = self.holders(ids).into_parts();
        holders.insert(DEAD_KEY, doc! { "$exists": true });
        // Entries with other dead letters match both.
        let left = (!chunk.left_dead.is_empty()).then(|| are_at(chunk.left_dead.iter().copied()));
        let filters = iter::once(holders).chain(left).collect();
        let matched = self.next_step().matched_by_majority(filters).await?;
        Ok(matched == 2 * chunk.left_dead.len() as u64)
    }
}

/// Selects the places in the list of dead letters of those that died before `end`.
fn dead_until(end: DateTime) -> Document {
    // A time that no purge lasts to is damaged.
    let [end, never] =
        [end, instant::after(end, LONGEST_PURGE)].map(|time| dead_time(time.timestamp_millis()));
    doc! { "$exists": true, "$not": { "$gte": end, "$lt": never } }
}

/// The numbers of its dead letters, in ascending order.
pub(super) fn dead_numbers(entry: &Entry) -> Vec<usize> {
    let dead = entry.parts.iter().filter(|part| part.dead_at().is_some());
    let mut numbers: Vec<usize> = dead.flat_map(|part| part.numbers.clone()).collect();
    numbers.sort_unstable();
    numbers
}
