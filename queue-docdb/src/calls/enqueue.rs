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

/// The most payload bytes of an entry of several messages. Each write of an entry may rewrite all of
/// them.
const ENTRY_BYTES: usize = 64 << 10;

impl QueueCollection {
    pub(crate) async fn enqueue(
        &self,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>, StoreError> {
        self.prepare().await?;
        let mut outcomes = vec![EnqueueOutcome::Duplicate; messages.len()];
        let now = self.now().await;
        let mut open = self.drafts(messages, &first_uses(messages), self.entry_size, now);
        let mut retries = self.deadline.retries();
        while !open.is_empty() {
            let documents = documents(&open, messages);
            let rest = open.split_off(documents.len());
            let inserted = self.insert_once(documents).await;
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
            if let Some(error) = lost.or(inserted.unconfirmed) {
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
        refused: Vec<(NewEntry, &Refusal)>,
        now: DateTime,
    ) -> Result<Vec<NewEntry>, StoreError> {
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
        let entries = self.find(self.holders(&ids), Stored::read).await?;
        // Those of other messages in the same entries do no harm. A damaged document holds its ids,
        // too, but no find tells which: the refusal of an entry of one does.
        let held = entries.into_iter().flatten().flat_map(|entry| entry.ids);
        let held: HashSet<MessageId> = held.collect();
        let (held, new): (Vec<usize>, Vec<usize>) = indexes
            .into_iter()
            .partition(|&index| held.contains(&messages[index].id));
        // All duplicates may be gone by now. Entries of one then find the one that is stored.
        let size = if held.is_empty() { 1 } else { self.entry_size };
        let mut drafts = self.drafts(messages, &held, 1, now);
        drafts.extend(self.drafts(messages, &new, size, now));
        Ok(drafts)
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

    /// Entries of up to `size` of these messages, once the queue is prepared. Those of one entry have the
    /// same settings.
    pub(crate) fn drafts(
        &self,
        messages: &[NewMessage],
        indexes: &[usize],
        size: usize,
        now: DateTime,
    ) -> Vec<NewEntry> {
        let is_keyed = self.state.knowledge.is_keyed();
        let size = if is_keyed { 1 } else { size };
        let mut full: Vec<Vec<usize>> = Vec::new();
        let mut open: HashMap<_, (Vec<usize>, usize)> = HashMap::new();
        for &index in indexes {
            let message = &messages[index];
            let settings = (
                message.delay_or_default(),
                message.visibility_timeout_or_default(),
                message.max_attempts_or_default(),
            );
            let weight = encode::bytes(&message.payload, &message.headers);
            let (group, bytes) = open.entry(settings).or_default();
            if !group.is_empty() && (group.len() == size || *bytes + weight > ENTRY_BYTES) {
                full.push(std::mem::take(group));
                *bytes = 0;
            }
            group.push(index);
            *bytes += weight;
        }
        full.extend(open.into_values().map(|(group, _)| group));
        // In the order of the call.
        full.sort_unstable();
        let draft = |indexes| NewEntry::new(messages, indexes, is_keyed, now);
        full.into_iter().map(draft).collect()
    }

    /// Whether a majority has all of these entries. If so, this call has stored them, because an
    /// `_id` never comes again.
    async fn has_all(&self, drafts: &[NewEntry]) -> Result<bool, StoreError> {
        let keys = drafts.iter().map(|it| (it.id, it.born));
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

/// The documents of as many drafts as fit into the next command, at least one.
pub(crate) fn documents(drafts: &[NewEntry], messages: &[NewMessage]) -> Vec<Document> {
    let mut fits = fitting();
    let documents = drafts.iter().map(|draft| draft.document(messages));
    let fits = |document: &Document| fits(encode::most_bytes(document));
    documents.take_while(fits).collect()
}

fn store(drafts: &[NewEntry], outcomes: &mut [EnqueueOutcome]) {
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
                let (all, now) = ((0..size).collect(), DateTime::from_millis(0));
                let document = NewEntry::new(&same, all, is_keyed, now).document(&same);
                let real = RawDocumentBuf::from_document(&document).expect("encoded");
                let (real, estimate) = (real.as_bytes().len(), encode::most_bytes(&document));
                assert!(
                    real <= estimate,
                    "{size} of {message:?}: {real} > {estimate}"
                );
            }
        }
    }
}
