//! Duplicate keys: of an id, or of an index that is not the queue's.

use mongodb::{
    bson::{Document, RawDocumentBuf, doc},
    error::ErrorKind as DriverKind,
};

use crate::{
    collection::{Query, QueueCollection},
    document,
    error::{DUPLICATE_KEY, Refusal, StoreError},
};

impl Refusal {
    /// The index whose key is a duplicate, by the server's text, and what follows its name.
    fn index(&self) -> Option<(&str, &str)> {
        let (_, index) = self.message.split_once(" index: ")?;
        let ends = [" dup key:", " collation:"].map(|end| index.find(end));
        let end = ends.into_iter().flatten().min().unwrap_or(index.len());
        Some(index.split_at(end))
    }

    /// Whether a duplicate key is an `_id`, of the same text.
    pub(crate) fn is_about_id(&self) -> bool {
        let index = self.index();
        index.is_some_and(|(name, rest)| name == "_id_" && !rest.starts_with(" collation:"))
    }

    /// What to do about an index that refuses messages.
    pub(crate) fn explain_index(&self, collection: &str) -> String {
        match self.index() {
            Some(("_id_", _)) => format!(
                "the collection `{collection}` has a collation, so its index `_id_` takes different \
                 ids for equal; drop the collection, and make it without a collation"
            ),
            index => format!(
                "the unique index `{}` of the collection `{collection}` refuses a message whose id \
                 the queue does not hold; drop this index: only `_id` may be unique",
                index.map_or("unknown", |(name, _)| name),
            ),
        }
    }
}

impl StoreError {
    /// The refusal, where the server refused all of a command because of a duplicate key.
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
    /// Whether a duplicate key is the id of each of these, and not a key of another index.
    ///
    /// # Errors
    /// [`StoreError::Index`] where the queue does not hold an id.
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
        // Exactly these: a collation finds others as well.
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
    fn a_duplicate_key_is_an_id_or_that_of_an_index_with_a_name() {
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
