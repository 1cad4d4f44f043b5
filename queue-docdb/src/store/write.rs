//! Compare-and-set of entries, and how to find out what a write without an answer did.
//!
//! An entry's revision guards every write of it. Each call adds a random number of its own to the
//! revisions of what it writes, so a revision never comes back. After a write, a document has
//!
//! - the revision that was seen plus the call's number: the write was carried out;
//! - another one: another call wrote, before or after. Then its contents may tell.
//!
//! `written.rs` makes these conclusions.
//!
//! A model of this protocol is in `tests/protocol_model`. Rules that it enforces:
//!
//! - A find alone proves nothing: a failover may undo what it showed. A majority write that matches
//!   the revision does.
//! - A number stands for one content. A changed decision draws another one.
//! - A write whose answer was lost may still arrive. It is reported as not done only after a fence:
//!   another write of the same revision, so that the late one matches nothing.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use mongodb::bson::{Document, RawDocumentBuf, Uuid, doc};

use crate::{
    document::{
        decode::Damage,
        encode::{self, FIRST_REVISIONS, REVISIONS_END},
        fields::{ID, MESSAGES, REV},
        stored::Stored,
    },
    store::{
        collection::{Query, QueueCollection},
        error::StoreError,
        written::{self, Trace, Written},
    },
};

/// How many entries are deleted side by side, each by a command of its own. For more entries, so many
/// commands cost more than a find.
pub(crate) const MOST_DELETES: usize = 4;

/// The most bytes of documents or updates in a command. Servers accept a command of 16 MiB.
const MOST_BYTES: usize = 15 << 20;

/// The most that a call adds to a revision. Two writes of one revision seldom add the same.
const MOST_ADDED: i64 = 1 << 30;

/// An entry is written at least so often before its revision is too large.
const _: () = assert!((REVISIONS_END - FIRST_REVISIONS) / MOST_ADDED > 1 << 30);

/// A write of an entry, if it is still as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) id: Uuid,
    pub(crate) seen: i64,
    /// If its `_id` may come again.
    pub(crate) born: Option<i64>,
    /// An empty one states that nothing has changed since. `None`: the entry is deleted.
    pub(crate) update: Option<Document>,
    pub(crate) trace: Trace,
}

impl QueueCollection {
    /// Makes these writes of different entries. Returns what each did, in order, and whether a write was
    /// given up. A write that takes longer than `longest` is given up, and looked for. `added`: that of
    /// the call, a new one for each content. `most`: how many writes a command has at most.
    ///
    /// # Errors
    /// The server refuses them, or none could be sent.
    pub(crate) async fn compare_and_set(
        &self,
        writes: &[Write],
        added: i64,
        most: usize,
        longest: Duration,
    ) -> Result<(Vec<Written>, bool), StoreError> {
        let (deletes, updates): (Vec<&Write>, Vec<&Write>) =
            writes.iter().partition(|write| write.update.is_none());
        // The answer is a number. If it is that of one entry, it tells what was done to it.
        let chunk = match deletes.len() {
            ..=MOST_DELETES => 1,
            all => all.min(most),
        };
        let mut parts: Vec<&[&Write]> = deletes.chunks(chunk).collect();
        for some in updates.chunks(most) {
            parts.extend(parts_of_commands(some));
        }
        let sent = parts
            .iter()
            .map(|part| self.write_part(part, added, longest));
        let done = join_all(sent).await;
        // Another error may follow a write that took effect, so it is the error of all.
        let did_nothing =
            |done: &Result<_, StoreError>| matches!(done, Err(error) if error.did_nothing());
        let is_some_sent = !done.iter().all(did_nothing);
        let done = parts.iter().zip(done).map(|(part, done)| match done {
            Err(error) if is_some_sent && error.did_nothing() => {
                Ok((vec![Written::NotYet; part.len()], false))
            }
            done => done,
        });
        let done = done.collect::<Result<Vec<_>, StoreError>>()?;
        let has_given_up = done.iter().any(|(_, has_given_up)| *has_given_up);
        let sent = deletes.iter().chain(&updates).map(|write| write.id);
        let did: HashMap<Uuid, Written> = sent.zip(done.into_iter().flat_map(|it| it.0)).collect();
        let did = writes.iter().map(|write| did.get(&write.id).copied());
        let did = did.map(|did| did.unwrap_or(Written::Unknown));
        Ok((did.collect(), has_given_up))
    }

    /// Makes the writes of one command.
    async fn write_part(
        &self,
        writes: &[&Write],
        added: i64,
        longest: Duration,
    ) -> Result<(Vec<Written>, bool), StoreError> {
        // What it did can be looked up afterwards.
        let first_try = self.within(self.deadline.of_first_try().at_most(longest));
        let matched = match first_try.write(self.write_command(writes, added)).await {
            Ok(matched) if matched == writes.len() as u64 => {
                return Ok((vec![Written::Yes; writes.len()], false));
            }
            Ok(matched) => matched,
            // It was sent as often as the time allowed.
            Err(error) if error.did_nothing() => return Err(error),
            Err(error) => {
                let has_given_up = matches!(error, StoreError::TimedOut(_));
                let paused = self.deadline.retries().after(error).await;
                let did = match are_deletes(writes) {
                    // Of what is gone, nothing tells who deleted it.
                    true => Ok(vec![Written::Unknown; writes.len()]),
                    false => self.unanswered_updates(writes, added).await,
                };
                return match paused {
                    Ok(()) => Ok((unless_transient(did, writes)?, has_given_up)),
                    // A permanent error may also follow a write that took effect.
                    Err(error) => match did {
                        Ok(did) if did.iter().all(|it| *it == Written::Yes) => Ok((did, false)),
                        _ => Err(error),
                    },
                };
            }
        };
        let entries = self.written_entries(writes).await;
        let did = entries.map(|entries| {
            let is_left = |write: &&Write| entries.contains_key(&write.id);
            match are_deletes(writes) {
                true => {
                    let are_left: Vec<bool> = writes.iter().map(is_left).collect();
                    written::of_answered_deletes(matched, &are_left)
                }
                false => written::of_answered_updates(matched, &are_made(writes, added, &entries)),
            }
        });
        Ok((unless_transient(did, writes)?, false))
    }

    /// The command that makes these writes, which are all updates or all deletes.
    pub(crate) fn write_command(&self, writes: &[&Write], added: i64) -> Document {
        match are_deletes(writes) {
            true => {
                let seen = writes.iter().map(|write| (write.id, write.seen));
                self.command("delete", vec![doc! { "q": are_at(seen), "limit": 0 }])
            }
            false => self.command("update", update_statements(writes, added)),
        }
    }

    /// What updates did whose answer was lost.
    async fn unanswered_updates(
        &self,
        writes: &[&Write],
        added: i64,
    ) -> Result<Vec<Written>, StoreError> {
        let entries = self.written_entries(writes).await?;
        let made = are_made(writes, added, &entries);
        let shown = writes
            .iter()
            .zip(&made)
            .filter(|(_, made)| **made == Some(true));
        let shown = shown.filter_map(|(write, _)| entries.get(&write.id));
        let shown: Vec<_> = shown.map(|stored| (stored.id, stored.rev)).collect();
        let is_certain = self.are_at(&shown).await?;
        Ok(written::of_unanswered_updates(&made, is_certain))
    }

    /// Fences updates that may still arrive: it changes the revision first, so that they match nothing.
    /// In `written`, `NotYet` becomes `Yes` or `No`, if that can be told. Returns whether the fence was given
    /// up.
    pub(crate) async fn fence(
        &self,
        writes: &[Write],
        added: i64,
        written: &mut [Written],
        longest: Duration,
    ) -> Result<bool, StoreError> {
        let is_open = |index: &usize| written[*index] == Written::NotYet;
        let open: Vec<usize> = (0..writes.len()).filter(is_open).collect();
        let fence = |index: &usize| Write {
            update: Some(doc! {}),
            // It ends no lease and makes none, so only its revision shows it.
            trace: Trace::Ended(Vec::new()),
            ..writes[*index].clone()
        };
        let fences: Vec<Write> = open.iter().map(fence).collect();
        let fenced = self.compare_and_set(&fences, new_addend(), usize::MAX, longest);
        let (fenced, has_given_up) = fenced.await?;
        let mut late = Vec::new();
        for (index, fenced) in open.into_iter().zip(fenced) {
            match fenced {
                Written::Yes => written[index] = Written::No,
                // It may have been the update.
                Written::No | Written::Unknown => late.push(index),
                Written::NotYet => {}
            }
        }
        if !late.is_empty() {
            let updates: Vec<&Write> = late.iter().map(|&index| &writes[index]).collect();
            let did = self.unanswered_updates(&updates, added).await?;
            for (index, did) in late.into_iter().zip(did) {
                written[index] = did;
            }
        }
        Ok(has_given_up)
    }

    /// Returns whether a majority has all of these entries at these revisions.
    pub(crate) async fn are_at(&self, revs: &[(Uuid, i64)]) -> Result<bool, StoreError> {
        let filter = are_at(revs.iter().copied());
        Ok(revs.is_empty() || self.held_by_majority(filter).await? == revs.len() as u64)
    }

    /// Returns whether a majority has none of these entries.
    pub(crate) async fn are_absent(&self, ids: &[Uuid]) -> Result<bool, StoreError> {
        let filter = doc! { ID: { "$in": ids } };
        Ok(ids.is_empty() || self.held_by_majority(filter).await? == 0)
    }

    /// What is left of the entries of these writes.
    async fn written_entries(
        &self,
        writes: &[&Write],
    ) -> Result<HashMap<Uuid, Stored>, StoreError> {
        let ids = writes.iter().map(|write| write.id).collect();
        let mut entries = by_id(self.find(entries_by_id(ids), Stored::read).await?)?;
        // A later entry of the same message id is not the one that was written.
        let born: HashMap<_, _> = writes.iter().map(|it| (it.id, it.born)).collect();
        entries.retain(|id, entry| born.get(id) == Some(&entry.born));
        Ok(entries)
    }
}

/// What writes did that were sent, if it could be looked up.
fn unless_transient(
    did: Result<Vec<Written>, StoreError>,
    writes: &[&Write],
) -> Result<Vec<Written>, StoreError> {
    match did {
        Err(error) if error.is_transient() => Ok(vec![Written::Unknown; writes.len()]),
        did => did,
    }
}

/// Whether each update was made, as these entries show.
fn are_made(writes: &[&Write], added: i64, entries: &HashMap<Uuid, Stored>) -> Vec<Option<bool>> {
    let is_made = |write: &&Write| {
        let found = entries.get(&write.id);
        let found = found.map(|stored| (stored.rev, &stored.entry));
        written::is_update_made(write.seen, added, &write.trace, found)
    };
    writes.iter().map(is_made).collect()
}

/// Finds entries without their messages.
pub(crate) fn entries_by_id(ids: Vec<Uuid>) -> Query {
    let limit = ids.len();
    Query::by_ids(doc! { ID: { "$in": ids } }, limit).with_projection(doc! { MESSAGES: 0 })
}

/// # Errors
/// An entry is damaged, so the state of its receipts is unknown.
pub(crate) fn by_id(
    found: Vec<Result<Stored, Damage>>,
) -> Result<HashMap<Uuid, Stored>, StoreError> {
    let found = found.into_iter().map(|found| match found {
        Ok(stored) => Ok((stored.id, stored)),
        Err(damage) => Err(StoreError::Unreadable(damage.to_string())),
    });
    found.collect()
}

/// What a write adds to revisions. One for each content: a write that arrives late must not pass for
/// another one.
pub(crate) fn new_addend() -> i64 {
    fastrand::i64(1..MOST_ADDED)
}

/// Selects entries that are as they were seen. It cannot match crosswise, because every entry's
/// revision begins at random.
pub(crate) fn are_at(revs: impl IntoIterator<Item = (Uuid, i64)>) -> Document {
    let (ids, revs): (Vec<Uuid>, Vec<i64>) = revs.into_iter().unzip();
    match (ids.as_slice(), revs.as_slice()) {
        ([id], [rev]) => doc! { ID: *id, REV: *rev },
        _ => doc! { ID: { "$in": ids }, REV: { "$in": revs } },
    }
}

/// The writes in parts, each of which fits into a command. All deletes do.
pub(crate) fn parts_of_commands<'a>(
    writes: &'a [&'a Write],
) -> impl Iterator<Item = &'a [&'a Write]> {
    let bytes = |write: &&Write| write.update.as_ref().map_or(0, encode::most_bytes);
    let mut rest = writes;
    std::iter::from_fn(move || {
        let mut fits = fitting();
        let fit = rest.iter().map(bytes).take_while(|&bytes| fits(bytes));
        let (part, others) = rest.split_at(fit.count());
        rest = others;
        (!part.is_empty()).then_some(part)
    })
}

/// Tells of one item after another, by its bytes, whether it fits into the same command. The first one does.
pub(crate) fn fitting() -> impl FnMut(usize) -> bool {
    let mut all = 0;
    move |bytes| {
        let is_first = all == 0;
        all += bytes;
        is_first || all <= MOST_BYTES
    }
}

fn are_deletes(writes: &[&Write]) -> bool {
    writes.iter().all(|write| write.update.is_none())
}

/// One statement for all entries with the same update. With a hint: the planner may otherwise use the
/// index on time and read every ready message.
fn update_statements(writes: &[&Write], added: i64) -> Vec<Document> {
    let mut groups: Vec<(&Document, Vec<(Uuid, i64)>)> = Vec::new();
    // There may be thousands of groups.
    let mut places = HashMap::new();
    for write in writes {
        let Some(update) = &write.update else {
            continue;
        };
        let bytes = RawDocumentBuf::from_document(update).expect("the fields' names are valid");
        let place = *places.entry(bytes.into_bytes()).or_insert(groups.len());
        if place == groups.len() {
            groups.push((update, Vec::new()));
        }
        groups[place].1.push((write.id, write.seen));
    }
    let statement = |(update, revs): (&Document, Vec<(Uuid, i64)>)| {
        let mut update = update.clone();
        update.insert("$inc", doc! { REV: added });
        doc! { "q": are_at(revs), "u": update, "multi": true, "hint": { ID: 1 } }
    };
    groups.into_iter().map(statement).collect()
}
