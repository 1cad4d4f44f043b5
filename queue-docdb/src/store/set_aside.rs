//! Documents that cannot be read. They are set aside, so that no claim finds them again.
//!
//! The ready time of such a document becomes `false`. That is shorter than a date, so the largest document
//! has room for it. It stays in the index, where it is counted. It leaves the list of dead letters.

use std::collections::HashSet;

use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, Uuid, doc};

use crate::{
    document::{
        decode::Damage,
        encode::entry_ids,
        fields::{DEAD_KEY, ID, PARTED, VISIBLE_AT},
        stored::Stored,
    },
    store::{
        collection::{Query, QueueCollection},
        error::StoreError,
    },
};

/// A document that cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    /// `None` if no command can contain it. Boxed, because this is an error of many calls.
    id: Option<Box<Bson>>,
    damage: Damage,
    is_set_aside: bool,
}

impl Unreadable {
    /// The entry's `_id`, if it has one.
    pub(crate) fn entry(&self) -> Option<Uuid> {
        match self.id.as_deref() {
            Some(Bson::Binary(id)) => id.to_uuid().ok(),
            _ => None,
        }
    }
}

/// What a find has shown.
#[derive(Debug, Default)]
pub(crate) struct FoundEntries {
    pub(crate) entries: Vec<Stored>,
    pub(crate) unreadable: Vec<Unreadable>,
    /// How many documents the find returned.
    pub(crate) number: usize,
    /// Whether these are all.
    pub(crate) is_whole: bool,
}

/// Selects the documents that are set aside.
pub(crate) fn are_set_aside() -> Document {
    doc! { VISIBLE_AT: false }
}

impl QueueCollection {
    /// Returns how many documents a majority has set aside now.
    pub(crate) async fn set_aside(&self, documents: Vec<Unreadable>) -> Result<u64, StoreError> {
        if documents.is_empty() {
            return Ok(0);
        }
        for Unreadable { id, damage, .. } in documents.iter().filter(|it| !it.is_set_aside) {
            let filter = id
                .as_ref()
                .map_or_else(without_exact_id, |id| doc! { ID: &**id });
            tracing::warn!(
                collection = self.messages.name(), document = %filter, %damage,
                "a document cannot be read; it is set aside; repair it and set visible_at, or remove it"
            );
        }
        let all = documents.len();
        let ids: Vec<Bson> = documents
            .into_iter()
            .filter_map(|it| it.id.map(|id| *id))
            .collect();
        let others = (ids.len() < all).then(without_exact_id);
        let ids = (!ids.is_empty()).then(|| doc! { ID: { "$in": ids } });
        let update = doc! { "$set": { VISIBLE_AT: false }, "$unset": { DEAD_KEY: "" } };
        let statements = ids.into_iter().chain(others);
        let statements = statements
            .map(|filter| doc! { "q": filter, "u": &update, "multi": true, "hint": { ID: 1 } });
        self.update_repeatedly(statements.collect()).await
    }

    /// Finds entries up to about `max_bytes`, in order.
    pub(crate) async fn find_entries(
        &self,
        max_bytes: usize,
        query: Query,
        read: impl Fn(&RawDocument) -> Result<Stored, Damage> + Send + Sync,
    ) -> Result<FoundEntries, StoreError> {
        let read = |found: &RawDocument| {
            read(found).map_err(|damage| Unreadable {
                id: exact_id(found).map(Box::new),
                damage,
                is_set_aside: found.get_bool(VISIBLE_AT) == Ok(false),
            })
        };
        let (all, is_whole) = self.find_within(max_bytes, query, read).await?;
        let mut found = FoundEntries {
            number: all.len(),
            is_whole,
            ..FoundEntries::default()
        };
        for each in all {
            match each {
                Ok(stored) => found.entries.push(stored),
                Err(document) => found.unreadable.push(document),
            }
        }
        // An entry that is written during the find may be met twice. The last one is newer.
        let mut ids = HashSet::new();
        found.entries.reverse();
        found.entries.retain(|stored| ids.insert(stored.id));
        found.entries.reverse();
        Ok(found)
    }
}

/// Selects documents whose `_id` no command can contain, and which calls find. Such an `_id` has strings
/// that are not UTF-8, fields like operators, or binary values of a false length.
fn without_exact_id() -> Document {
    doc! {
        "$nor": [{ ID: entry_ids() }],
        "$or": [
            { VISIBLE_AT: { "$type": ["date", "array"] } },
            { DEAD_KEY: { "$exists": true } },
            { PARTED: true, VISIBLE_AT: { "$exists": false } },
        ],
    }
}

/// The `_id`, if a command can contain every byte of it.
fn exact_id(document: &RawDocument) -> Option<Bson> {
    let found = document.get(ID).ok()??;
    let id = Bson::try_from(found).ok()?;
    let fields = id.as_document().into_iter().flat_map(Document::keys);
    if fields.into_iter().any(|field| field.starts_with('$')) {
        return None;
    }
    let again = RawDocumentBuf::from_document(&doc! { ID: id.clone() }).ok()?;
    (again.get(ID).ok()? == Some(found)).then_some(id)
}
