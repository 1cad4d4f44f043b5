//! Documents that cannot be read. They are set aside, so that no claim finds them again.
//!
//! The ready time of such a document becomes `false`: no time, and shorter than one, so that it also
//! fits into a document of the largest size. It stays in the index, where it is counted.

use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};

use crate::{
    document::{
        encoding::Damage,
        fields::{ID, VISIBLE_AT},
    },
    store::{collection::QueueCollection, error::StoreError},
};

/// A document that cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    /// Selects it. Maybe also others, but none that can be read.
    filter: Document,
    damage: Damage,
}

impl Unreadable {
    pub(crate) fn new(document: &RawDocument, damage: Damage) -> Self {
        Self {
            filter: filter(document),
            damage,
        }
    }
}

/// Selects the documents that are set aside.
pub(crate) fn are_set_aside() -> Document {
    doc! { VISIBLE_AT: false }
}

impl QueueCollection {
    pub(crate) async fn set_aside(&self, documents: Vec<Unreadable>) -> Result<(), StoreError> {
        if documents.is_empty() {
            return Ok(());
        }
        for Unreadable { filter, damage } in &documents {
            tracing::warn!(
                collection = self.messages.name(), document = %filter, %damage,
                "a document cannot be read; it is set aside; repair it and set visible_at, or remove it"
            );
        }
        let update = doc! { "$set": { VISIBLE_AT: false } };
        let statements = documents.into_iter().map(|unreadable| {
            doc! { "q": unreadable.filter, "u": update.clone(), "multi": true }
        });
        self.update(statements.collect()).await.map(drop)
    }
}

/// The server stores strings that are not UTF-8, which no command of the driver can contain. For
/// them, the filter selects all that is live and whose `_id` is not an entry's.
fn filter(document: &RawDocument) -> Document {
    match exact_id(document) {
        Some(id) => doc! { ID: id },
        None => doc! {
            "$nor": [{ ID: { "$type": "binData" } }],
            VISIBLE_AT: { "$type": ["date", "array"] },
        },
    }
}

/// The `_id`, if a command can contain every byte of it.
fn exact_id(document: &RawDocument) -> Option<Bson> {
    let found = document.get(ID).ok()??;
    let id = Bson::try_from(found).ok()?;
    let again = RawDocumentBuf::from_document(&doc! { ID: id.clone() }).ok()?;
    (again.get(ID).ok()? == Some(found)).then_some(id)
}
