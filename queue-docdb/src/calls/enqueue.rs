//! Enqueue: messages with the same settings share entries, which are inserted in one command.

use std::collections::{HashMap, HashSet};

use mongodb::bson::{Bson, DateTime, Document, doc};
use queue_api::{EnqueueOutcome, MessageId, NewMessage};

use crate::{
    document::{
        encode::{self, NewEntry, id_value, key},
        fields::{BORN, ID, IDS, MESSAGES},
        stored::Stored,
    },
    store::{
        codes::DUPLICATE_KEY,
        collection::{Query, QueueCollection},
        error::{Refusal, StoreError},
        insert::Inserted,
        write::fitting,
    },
};

/// More than the fields of an entry take beside its messages.
const ENTRY_FIELDS: usize = 512;

/// More than the names, types and lengths take that surround a message or a header.
const FRAME: usize = 64;

/// The most payload bytes of an entry of several messages. Each write of an entry may rewrite all of
/// them.
const ENTRY_BYTES: usize = 64 << 10;

/// How messages share entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryShape {
    pub(crate) size: usize,
    /// Whether a message is found by its entry's `_id`.
    is_keyed: bool,
}

/// An entry to insert, and the positions of its messages in the call.
pub(crate) struct Draft {
    pub(crate) entry: NewEntry,
    pub(crate) indexes: Vec<usize>,
}

impl QueueCollection {
    pub(crate) async fn enqueue(
        &self,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>, StoreError> {
        self.prepare().await?;
        let mut outcomes = vec![EnqueueOutcome::Duplicate; messages.len()];
        let now = self.now().await;
        let mut open = drafts(messages, &first_uses(messages), self.entry_shape(), now);
        let mut retries = self.deadline.retries();
        while !open.is_empty() {
            let rest = open.split_off(first_part(&open, messages));
            let inserted = self.insert_once(documents(&open, messages)).await;
            // Also after an error: some may have been stored.
            self.state.shared_poll.notify();
            let (inserted, lost) = match inserted {
                Ok(inserted) => (inserted, None),
                Err(error) if error.did_nothing() => {
                    retries.after(error).await?;
                    open.extend(rest);
                    continue;
                }
                Err(error) => (Inserted::default(), Some(error)),
            };
            let (mut refusals, mut stored) = (Vec::new(), Vec::new());
            for (index, draft) in open.into_iter().enumerate() {
                match inserted.refused.get(&index) {
                    Some(refusal) => refusals.push((draft, refusal)),
                    None => stored.push(draft),
                }
            }
            let matched = stored.len() as u64;
            let unconfirmed = inserted.unconfirmed;
            let unconfirmed = unconfirmed.map(|reason| StoreError::Unconfirmed { matched, reason });
            if let Some(error) = lost.or(unconfirmed) {
                // It may still arrive, so it is not sent again.
                retries.after(error).await?;
                if !self.has_all(&stored).await? {
                    return Err(retries.into_last());
                }
                store(&stored, &mut outcomes);
                // A failover may undo the cause of a refusal, so the refused ones are sent again.
                open = refusals.into_iter().map(|(draft, _)| draft).collect();
                open.extend(rest);
                continue;
            }
            store(&stored, &mut outcomes);
            let (duplicates, failed): (Vec<_>, Vec<_>) = refusals
                .into_iter()
                .partition(|(_, refusal)| refusal.code == DUPLICATE_KEY);
            open = self.regroup(messages, duplicates, now).await?;
            if let Some((_, first)) = failed.first() {
                retries.after(StoreError::Refused((*first).clone())).await?;
            }
            open.extend(failed.into_iter().map(|(draft, _)| draft));
            open.extend(rest);
        }
        Ok(outcomes)
    }

    /// What to insert in place of refused entries.
    ///
    /// A refused entry of one is a duplicate. In a larger one, some are. A find only proposes which:
    /// those become entries of one, and the server's refusal decides.
    async fn regroup(
        &self,
        messages: &[NewMessage],
        refused: Vec<(Draft, &Refusal)>,
        now: DateTime,
    ) -> Result<Vec<Draft>, StoreError> {
        let ones = refused.iter().filter(|(draft, _)| draft.indexes.len() == 1);
        let ones = ones.filter_map(|(draft, refusal)| Some((draft.indexes.first()?, *refusal)));
        let ones = ones.map(|(&index, refusal)| (&messages[index].id, refusal));
        self.check_duplicates(ones).await?;
        let indexes = refused.into_iter().map(|(draft, _)| draft.indexes);
        let indexes: Vec<usize> = indexes.filter(|it| it.len() > 1).flatten().collect();
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&MessageId> = indexes.iter().map(|&index| &messages[index].id).collect();
        let held = self.held_ids(&ids).await?;
        let (held, new): (Vec<usize>, Vec<usize>) = indexes
            .into_iter()
            .partition(|&index| held.contains(&messages[index].id));
        // All duplicates may be gone by now. Entries of one then find the one that is stored.
        let shape = self.entry_shape();
        let one = EntryShape { size: 1, ..shape };
        let rest = if held.is_empty() { one } else { shape };
        let mut drafts = drafts(messages, &held, one, now);
        drafts.extend(self::drafts(messages, &new, rest, now));
        Ok(drafts)
    }

    /// Which of these ids the queue holds, as a find sees it.
    pub(crate) async fn held_ids(
        &self,
        ids: &[&MessageId],
    ) -> Result<HashSet<MessageId>, StoreError> {
        let entries = self.find(self.holders(ids), Stored::read).await?;
        // Those of other messages in the same entries do no harm. A damaged document holds its ids,
        // too, but no find tells which: the refusal of an entry of one does.
        Ok(entries
            .into_iter()
            .flatten()
            .flat_map(|entry| entry.ids)
            .collect())
    }

    /// Finds the entries that have these ids, without their messages.
    pub(crate) fn holders(&self, ids: &[&MessageId]) -> Query {
        let (field, values): (_, Vec<Bson>) = match self.state.knowledge.is_keyed() {
            true => (ID, ids.iter().map(|id| key(id).into()).collect()),
            false => (IDS, ids.iter().map(|id| id_value(id)).collect()),
        };
        // Without the unique index, an id may have been stored again.
        let limit = ids.len().saturating_mul(4);
        Query::by_ids(doc! { field: { "$in": values } }, limit)
            .with_projection(doc! { MESSAGES: 0 })
    }

    /// The shape of new entries, once the queue is prepared.
    pub(crate) fn entry_shape(&self) -> EntryShape {
        let is_keyed = self.state.knowledge.is_keyed();
        let size = if is_keyed { 1 } else { self.entry_size };
        EntryShape { size, is_keyed }
    }

    /// Whether a majority has all of these entries. If so, this call has stored them, because an
    /// `_id` never comes again.
    async fn has_all(&self, drafts: &[Draft]) -> Result<bool, StoreError> {
        let keys = drafts.iter().map(|it| (it.entry.id, it.entry.born));
        let (ids, born): (Vec<_>, Vec<_>) = keys.unzip();
        let mut filter = doc! { ID: { "$in": ids } };
        if self.state.knowledge.is_keyed() {
            filter.insert(BORN, doc! { "$in": born });
        }
        Ok(drafts.is_empty() || self.held_by_majority(filter).await? == drafts.len() as u64)
    }
}

/// The positions of the first message with each id. Of equal ids in a call, the first is stored, and
/// the server would not see them within one entry.
pub(crate) fn first_uses(messages: &[NewMessage]) -> Vec<usize> {
    let mut ids = HashSet::with_capacity(messages.len());
    (0..messages.len())
        .filter(|&index| ids.insert(&messages[index].id))
        .collect()
}

/// Entries of these messages. Those of one entry have the same settings.
pub(crate) fn drafts(
    messages: &[NewMessage],
    indexes: &[usize],
    shape: EntryShape,
    now: DateTime,
) -> Vec<Draft> {
    let mut full: Vec<Vec<usize>> = Vec::new();
    let mut open: HashMap<_, (Vec<usize>, usize)> = HashMap::new();
    for &index in indexes {
        let message = &messages[index];
        let settings = (
            message.delay_or_default(),
            message.visibility_timeout_or_default(),
            message.max_attempts_or_default(),
        );
        let weight = bytes_of(message);
        let (group, bytes) = open.entry(settings).or_default();
        if !group.is_empty() && (group.len() == shape.size || *bytes + weight > ENTRY_BYTES) {
            full.push(std::mem::take(group));
            *bytes = 0;
        }
        group.push(index);
        *bytes += weight;
    }
    full.extend(open.into_values().map(|(group, _)| group));
    // In the order of the call.
    full.sort_unstable();
    let draft = |indexes: Vec<usize>| Draft {
        entry: NewEntry::new(&messages[indexes[0]], shape.is_keyed, now),
        indexes,
    };
    full.into_iter().map(draft).collect()
}

fn bytes_of(message: &NewMessage) -> usize {
    encode::bytes(&message.payload, &message.headers)
}

pub(crate) fn documents(drafts: &[Draft], messages: &[NewMessage]) -> Vec<Document> {
    let document = |draft: &Draft| {
        let of_entry: Vec<_> = draft.indexes.iter().map(|&at| &messages[at]).collect();
        draft.entry.document(&of_entry)
    };
    drafts.iter().map(document).collect()
}

/// How many of these fit into the next command, at least one.
pub(crate) fn first_part(drafts: &[Draft], messages: &[NewMessage]) -> usize {
    fitting(drafts, |draft| {
        let of_entry = draft.indexes.iter().map(|&at| &messages[at]);
        ENTRY_FIELDS + of_entry.map(encoded_size).sum::<usize>()
    })
}

/// The bytes of a message in a document, or a few more.
fn encoded_size(message: &NewMessage) -> usize {
    let frames = FRAME * (1 + message.headers.len());
    bytes_of(message) + message.id.as_str().len() + frames
}

fn store(drafts: &[Draft], outcomes: &mut [EnqueueOutcome]) {
    for draft in drafts {
        for &index in &draft.indexes {
            outcomes[index] = EnqueueOutcome::Stored;
        }
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::RawDocumentBuf;

    use super::*;

    /// A command that is larger than estimated may be larger than a server accepts.
    #[test]
    fn no_entry_is_larger_than_estimated() {
        let long = |length| "x".repeat(length);
        let id = |text: &str| MessageId::new(text).expect("valid");
        let headers = |count: usize, length| {
            let add = |message: NewMessage, n| message.with_header(format!("{n}"), long(length));
            (0..count).fold(NewMessage::new(""), add)
        };
        let messages = [
            NewMessage::new(""),
            NewMessage::new(long(1 << 18)),
            NewMessage::new("a").with_id(id("é")),
            NewMessage::new("a").with_id(id(&long(100))),
            headers(1, 0),
            headers(300, 0),
            headers(20, 1000),
        ];
        for message in messages {
            for (size, is_keyed) in [(1, true), (1, false), (16, false), (64, false)] {
                let same = vec![message.clone(); size];
                let entry = NewEntry::new(&message, is_keyed, DateTime::from_millis(0));
                let document = entry.document(&same.iter().collect::<Vec<_>>());
                let real = RawDocumentBuf::from_document(&document).expect("encoded");
                let estimate = ENTRY_FIELDS + size * encoded_size(&message);
                let real = real.as_bytes().len();
                assert!(
                    real <= estimate,
                    "{size} of {message:?}: {real} > {estimate}"
                );
            }
        }
    }
}
