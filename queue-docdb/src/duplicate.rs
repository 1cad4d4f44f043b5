//! Duplicate keys: of an id, or of a unique index that is not the queue's.

use mongodb::{
    bson::{Document, RawDocumentBuf, doc},
    error::ErrorKind as DriverKind,
};

use crate::{
    codes::DUPLICATE_KEY,
    collection::{Query, QueueCollection},
    document,
    error::{Refusal, StoreError},
};

impl Refusal {
    /// The name of the index in the server's message, and the text after it.
    fn index(&self) -> Option<(&str, &str)> {
        let (_, index) = self.message.split_once(" index: ")?;
        let ends = [" dup key:", " collation:"].map(|end| index.find(end));
        let end = ends.into_iter().flatten().min().unwrap_or(index.len());
        Some(index.split_at(end))
    }

    /// Whether the duplicate is an `_id`, compared byte by byte.
    pub(crate) fn is_about_id(&self) -> bool {
        let index = self.index();
        index.is_some_and(|(name, rest)| name == "_id_" && !rest.starts_with(" collation:"))
    }

    /// The error text: which index refuses the message, and what to do.
    pub(crate) fn explain_index(&self, collection: &str) -> String {
        match self.index() {
            Some(("_id_", _)) => format!(
                "the collection `{collection}` has a collation, so its index `_id_` treats different \
                 ids as equal; drop the collection and create it without a collation"
            ),
            index => format!(
                "the unique index `{}` of the collection `{collection}` refuses a message whose id \
                 is new; drop this index: only `_id` may be unique",
                index.map_or("unknown", |(name, _)| name),
            ),
        }
    }
}

impl StoreError {
    /// The refusal, if the server refused the whole command because of a duplicate key.
    pub(crate) fn into_duplicate(self) -> Result<Refusal, Self> {
        match &self {
            Self::Driver(error) => match &*error.kind {
                DriverKind::Command(command) if command.code == DUPLICATE_KEY => Ok(Refusal {
                    code: command.code,
                    message: command.message.clone(),
                }),
                _ => Err(self),
            },
            _ => Err(self),
        }
    }
}

impl QueueCollection {
    /// Checks that the queue holds the ids of these refused documents.
    ///
    /// # Errors
    /// [`StoreError::Index`] if it does not hold one: another index has refused the document.
    pub(crate) async fn check_duplicates<'a>(
        &self,
        refused: impl Iterator<Item = (&'a RawDocumentBuf, &'a Refusal)>,
    ) -> Result<(), StoreError> {
        let mut doubtful = Vec::new();
        for (document, refusal) in refused {
            if !refusal.is_about_id() {
                doubtful.extend(document::id(document).map(|id| (id, refusal)));
            }
        }
        if doubtful.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = doubtful.iter().map(|(id, _)| id.as_str()).collect();
        let query = Query::by_ids(doc! { "_id": { "$in": &ids } }, ids.len())
            .with_projection(doc! { "birth": 1 });
        let found = self
            .find(query, |found| {
                Some((document::id(found)?, document::uuid(found, "birth")))
            })
            .await?;
        // Only equal ids: with a collation, the find returns others too.
        let held: Vec<_> = found
            .into_iter()
            .flatten()
            .filter(|(id, _)| ids.contains(&id.as_str()))
            .collect();
        for (id, refusal) in &doubtful {
            if held.iter().all(|(held, _)| held != id) {
                return Err(StoreError::Index(
                    refusal.explain_index(self.messages.name()),
                ));
            }
        }
        let filters = held.iter().map(|(id, birth)| -> Document {
            doc! { "_id": id.as_str(), "birth": *birth }
        });
        match self.held_by_majority(filters).await? == held.len() as u64 {
            true => Ok(()),
            false => Err(StoreError::Uncertain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_index() {
        let says = |rest: &str| Refusal {
            code: DUPLICATE_KEY,
            message: format!("E11000 duplicate key error collection: shop.queue.mail{rest}"),
        };
        for plain in [
            " index: _id_ dup key: { _id: \" index: x\" }",
            " index: _id_",
        ] {
            assert!(says(plain).is_about_id(), "{plain}");
        }
        for (other, name) in [
            (" index: a b dup key: { a: 1 }", "`a b`"),
            (
                " index: _id_ collation: { locale: \"en\" } dup key: {}",
                "`_id_`",
            ),
            (" index: _id_2 dup key: { _id: 1 }", "`_id_2`"),
            ("", "`unknown`"),
        ] {
            let refusal = says(other);
            assert!(!refusal.is_about_id(), "{other}");
            let text = refusal.explain_index("queue.mail");
            assert!(text.contains(name) && text.contains("drop"), "{text}");
        }
    }
}
