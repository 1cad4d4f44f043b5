//! Administration: purge and redrive.

use std::{collections::BTreeMap, iter, time::Duration};

use mongodb::bson::{DateTime, Document, Uuid, doc};
use queue_api::{MessageId, Purge, Redrive};
use tokio::time::Instant;

use super::{settle, stats::live};
use crate::{
    document::{
        encode::{dead_in, dead_time},
        entry::{Entry, Part},
        fields::{DEAD_KEY, ENQUEUED_AT, ID, MESSAGES, PARTED, VISIBLE_AT},
        stored::Stored,
    },
    store::{
        collection::{Query, QueueCollection},
        error::StoreError,
        index::Index,
        set_aside::are_set_aside,
        write::{Write, new_addend, parts_of_commands},
        written::Trace,
    },
};

/// How many entries one command changes. Each such chunk has the operation timeout.
const CHUNK: usize = 1000;

/// A purge spares messages that were enqueued more than this many milliseconds after it began. The clocks of
/// two processes differ by a round trip at most.
pub(super) const PURGE_MARGIN: i64 = 1000;

/// In milliseconds: a day. A time further ahead is damage.
const LONGEST_PURGE: i64 = 24 * 3600 * 1000;

/// How long a round that changed something counts as progress.
const LONGEST_ROUNDS: Duration = Duration::from_secs(60);

/// How often in a row a chunk may be changed by others first. Each takes two round trips.
const MOST_LOST: u32 = 100;

/// The result of a chunk.
#[derive(Default)]
struct Chunk {
    /// Messages that were changed.
    changed: u64,
    /// Whether others have changed some of its entries first.
    is_lost: bool,
    /// Whether some of its documents could not be read. The next find does not return them.
    is_set_aside: bool,
    found: usize,
    /// The last entry that could be read.
    last: Option<Stored>,
}

impl QueueCollection {
    pub(crate) async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        self.restore().await?;
        // What comes later stays, or the purge might never end.
        let began = self.now().await;
        match what {
            Purge::Live => {
                let mut filter = live();
                filter.insert("$nor", vec![enqueued_since(began)]);
                let query = |after: Option<&Stored>| {
                    let mut filter = filter.clone();
                    // Otherwise each chunk passes over the dead keys of those before.
                    if let Some(at) = after.and_then(|last| last.entry.visible_at()) {
                        filter.insert(VISIBLE_AT, doc! { "$gte": DateTime::from_millis(at) });
                    }
                    Query::in_order_of(Index::Claim.keys(), filter, CHUNK)
                };
                let remove = |entry: &mut Entry, _: &Stored| {
                    let before = entry.numbers().len();
                    entry.parts.retain(|part| part.dead_at().is_some());
                    before - entry.numbers().len()
                };
                let round = |_| self.change_all(query, remove);
                self.until_none_left(Index::Claim, &filter, round).await
            }
            Purge::Dead => {
                let remove = |entry: &mut Entry, number: usize| {
                    entry.remove(number);
                    true
                };
                let end = began.saturating_add_millis(PURGE_MARGIN);
                let filter = doc! { DEAD_KEY: dead_until(end) };
                let round = |_| self.change_dead(end, remove);
                let removed = self.until_none_left(Index::DeadLetters, &filter, round);
                Ok(removed.await? + self.purge_set_aside().await?)
            }
        }
    }

    /// Makes rounds until a majority has none of the entries that the filter selects. Returns how many
    /// messages they have changed. `round` gets the number of the round, from 0.
    ///
    /// A failover may undo what a round's find showed: that another process has changed the rest, or
    /// this one in an earlier call.
    async fn until_none_left<F: Future<Output = Result<u64, StoreError>>>(
        &self,
        index: Index,
        filter: &Document,
        round: impl Fn(u32) -> F,
    ) -> Result<u64, StoreError> {
        let began = Instant::now();
        let (mut changed, mut lost) = (0, 0);
        for number in 0.. {
            let more = round(number).await?;
            changed += more;
            // A producer's clock may be slow. Then its new messages always look older than the call.
            lost = match more > 0 && began.elapsed() < LONGEST_ROUNDS {
                true => 0,
                false => lost + 1,
            };
            let left = [(filter.clone(), index.keys())];
            if self.next_step().matched_by_majority(left).await? == 0 {
                break;
            }
            if lost == MOST_LOST {
                return Err(StoreError::Uncertain);
            }
        }
        Ok(changed)
    }

    /// Removes what is set aside. Before, it sets parted entries aside that neither a claim nor the list
    /// of dead letters finds. No call leaves one, but stats count it.
    async fn purge_set_aside(&self) -> Result<u64, StoreError> {
        let no_time = doc! { "$exists": false };
        let no_place = doc! { "$not": { "$type": "string" } };
        let filter = doc! { PARTED: true, VISIBLE_AT: no_time, DEAD_KEY: no_place };
        let query =
            |_: Option<&Stored>| Query::in_order_of(Index::Parted.keys(), filter.clone(), CHUNK);
        self.change_all(query, |_, _| 0).await?;
        // The letters before may have taken longer than one step.
        let statement = doc! { "q": are_set_aside(), "limit": 0 };
        let command = self.command("delete", vec![statement]);
        self.next_step().write(command).await
    }

    /// Changes dead letters in one pass through their list, up to those that died before `end`.
    async fn change_dead(
        &self,
        end: DateTime,
        change: impl Fn(&mut Entry, usize) -> bool,
    ) -> Result<u64, StoreError> {
        let query = |after: Option<&Stored>| {
            let mut keys = dead_until(end);
            if let Some(after) = after.and_then(|last| last.dead_key.as_deref()) {
                keys.insert("$gt", after);
            }
            Query::in_order_of(Index::DeadLetters.keys(), doc! { DEAD_KEY: keys }, CHUNK)
        };
        let change = |entry: &mut Entry, _: &Stored| {
            let numbers = dead_numbers(entry).into_iter();
            numbers.filter(|&number| change(entry, number)).count()
        };
        self.change_all(query, change).await
    }

    /// Changes the entries of a query, chunk by chunk, until it finds no more. `query` gets the last
    /// entry of the chunk before. `change` returns how many messages it concerns.
    async fn change_all(
        &self,
        query: impl Fn(Option<&Stored>) -> Query,
        change: impl Fn(&mut Entry, &Stored) -> usize,
    ) -> Result<u64, StoreError> {
        let (mut changed, mut lost) = (0, 0);
        let mut after = None;
        loop {
            let query = query(after.as_ref());
            let chunk = self.next_step().change_chunk(query, &change).await?;
            changed += chunk.changed;
            let did_nothing = chunk.changed == 0 && !chunk.is_set_aside;
            if !chunk.is_lost && (chunk.found < CHUNK || did_nothing) {
                return Ok(changed);
            }
            if !chunk.is_lost && !chunk.is_set_aside {
                after = chunk.last;
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

    /// Changes the entries that a query finds. `change` returns how many messages it concerns.
    async fn change_chunk(
        &self,
        query: Query,
        mut change: impl FnMut(&mut Entry, &Stored) -> usize,
    ) -> Result<Chunk, StoreError> {
        let query = query.with_projection(doc! { MESSAGES: 0 });
        let found = self.find_entries(usize::MAX, query, Stored::read).await?;
        let mut chunk = Chunk {
            found: found.number,
            ..Chunk::default()
        };
        // The answer to a command is only a number, so each command has entries of which equally
        // many messages are changed.
        let mut commands: BTreeMap<(usize, bool), Vec<Write>> = BTreeMap::new();
        for stored in found.entries {
            let mut after = stored.entry.clone();
            let messages = change(&mut after, &stored);
            if messages > 0 {
                let write = settle::write(&stored, &after, Trace::Ended(Vec::new()));
                let is_delete = write.update.is_none();
                let command = commands.entry((messages, is_delete)).or_default();
                command.push(write);
            }
            chunk.last = Some(stored);
        }
        chunk.is_set_aside = self.set_aside(found.unreadable).await? > 0;
        for ((messages, _), writes) in commands {
            // Without a majority, this is an error: a failover may undo it.
            let all: Vec<&Write> = writes.iter().collect();
            let mut written = 0;
            for part in parts_of_commands(&all) {
                written += self.write(self.write_command(part, new_addend())).await?;
            }
            chunk.is_lost |= written < writes.len() as u64;
            chunk.changed += written * messages as u64;
        }
        Ok(chunk)
    }

    pub(crate) async fn redrive(&self, which: &Redrive) -> Result<u64, StoreError> {
        self.restore().await?;
        let began = self.now().await;
        let redriven = match which {
            Redrive::All => self.redrive_all(began).await,
            Redrive::Ids(ids) => self.redrive_ids(ids, began).await,
        };
        self.state.shared_poll.notify();
        redriven
    }

    async fn redrive_all(&self, began: DateTime) -> Result<u64, StoreError> {
        let now = began.timestamp_millis();
        let end = began.saturating_add_millis(1);
        let filter = doc! { DEAD_KEY: dead_until(end) };
        let redrive = |entry: &mut Entry, number| entry.redrive(number, now);
        // The first round takes letters of up to a minute ahead, because the clock of the process that wrote
        // one may be fast. Without a bound it would not end while consumers reject every message.
        let first = began.saturating_add_millis(LONGEST_ROUNDS.as_millis() as i64);
        let round = |number| self.change_dead(if number > 0 { end } else { first }, redrive);
        self.until_none_left(Index::DeadLetters, &filter, round)
            .await
    }

    async fn redrive_ids(&self, ids: &[MessageId], began: DateTime) -> Result<u64, StoreError> {
        let mut redriven = 0;
        for ids in ids.chunks(CHUNK) {
            let ids: Vec<&MessageId> = ids.iter().collect();
            redriven += self.redrive_chunk(&ids, began).await?;
        }
        Ok(redriven)
    }

    async fn redrive_chunk(&self, ids: &[&MessageId], began: DateTime) -> Result<u64, StoreError> {
        let now = began.timestamp_millis();
        let (mut redriven, mut lost) = (0, 0);
        loop {
            // Entries that have other dead letters too, with the numbers of these ids.
            let mut mixed = Vec::new();
            let change = |entry: &mut Entry, stored: &Stored| {
                let numbers = ids.iter().filter_map(|id| stored.number(id));
                let numbers: Vec<usize> = numbers.collect();
                // What has died since was made ready once.
                let is_due = |entry: &Entry, number| {
                    let died = entry.part(number).and_then(Part::dead_at);
                    lost == 0 || died.is_some_and(|at| at <= now)
                };
                let redriven = numbers
                    .iter()
                    .filter(|&&it| is_due(entry, it) && entry.redrive(it, now));
                let redriven = redriven.count();
                if entry.dead_at().is_some() {
                    mixed.push((stored.id, numbers));
                }
                redriven
            };
            let holders = self.holders(ids);
            let chunk = self.next_step().change_chunk(holders, change).await?;
            redriven += chunk.changed;
            let end = began.saturating_add_millis(1);
            if !chunk.is_lost && self.are_redriven(ids, &mixed, end).await? {
                return Ok(redriven);
            }
            lost += 1;
            if lost == MOST_LOST {
                return Err(StoreError::Uncertain);
            }
        }
    }

    /// Whether a majority has no letter with one of these ids that died before `end`. `mixed`: entries
    /// that have other dead letters too, with the numbers of these ids, which never change.
    async fn are_redriven(
        &self,
        ids: &[&MessageId],
        mixed: &[(Uuid, Vec<usize>)],
        end: DateTime,
    ) -> Result<bool, StoreError> {
        let (mut others, _) = self.holders(ids).into_parts();
        others.insert(DEAD_KEY, dead_until(end));
        let index = match self.state.knowledge.is_keyed() {
            true => doc! { ID: 1 },
            false => Index::Ids.keys(),
        };
        if !mixed.is_empty() {
            let mixed: Vec<Uuid> = mixed.iter().map(|(entry, _)| *entry).collect();
            others.insert("$nor", vec![doc! { ID: { "$in": mixed } }]);
        }
        let mixed = mixed
            .iter()
            .map(|(entry, numbers)| (dead_in(*entry, numbers, end), doc! { ID: 1 }));
        let left = iter::once((others, index)).chain(mixed);
        Ok(self.next_step().matched_by_majority(left).await? == 0)
    }
}

/// Selects what was enqueued after a call began.
pub(super) fn enqueued_since(began: DateTime) -> Document {
    // An array is damage.
    let [after, before] =
        [PURGE_MARGIN, LONGEST_PURGE].map(|millis| began.saturating_add_millis(millis));
    let is_array = format!("{ENQUEUED_AT}.0");
    doc! { ENQUEUED_AT: { "$gt": after, "$lt": before }, is_array: { "$exists": false } }
}

/// Selects the places in the list of dead letters of those that died before `end`.
fn dead_until(end: DateTime) -> Document {
    let never = end.saturating_add_millis(LONGEST_PURGE);
    let [end, never] = [end, never].map(|time| dead_time(time.timestamp_millis()));
    doc! { "$exists": true, "$not": { "$gte": end, "$lt": never } }
}

/// The numbers of its dead letters, in ascending order.
pub(super) fn dead_numbers(entry: &Entry) -> Vec<usize> {
    let dead = entry.parts.iter().filter(|part| part.dead_at().is_some());
    let mut numbers: Vec<usize> = dead.flat_map(|part| part.numbers.clone()).collect();
    numbers.sort_unstable();
    numbers
}
