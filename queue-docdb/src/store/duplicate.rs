//! Duplicate keys: of an id, or of a unique index that is not the queue's.

use queue_api::MessageId;

use crate::{
    document::stored::Stored,
    store::{
        codes::DUPLICATE_KEY,
        collection::QueueCollection,
        error::{Refusal, StoreError},
        index::Index,
    },
};

impl Refusal {
    /// The name of the index in the server's message, and the text after it.
    fn index(&self) -> Option<(&str, &str)> {
        let (_, index) = self.message.split_once(" index: ")?;
        let ends = [" dup key:", " collation:"].map(|end| index.find(end));
        let end = ends.into_iter().flatten().min().unwrap_or(index.len());
        Some(index.split_at(end))
    }

    /// Whether the duplicate is a message id, compared byte by byte.
    pub(crate) fn is_about_ids(&self) -> bool {
        // The holder may be gone by now, so no find tells it of an operator's index.
        const OF_IDS: &str = " dup key: { ids: ";
        self.index().is_some_and(|(name, rest)| {
            rest.starts_with(OF_IDS) || is_of_ids(name) && !rest.starts_with(" collation:")
        })
    }

    /// The error of a message whose id the queue does not hold: which index refuses it, and what to do.
    fn of_new_id(&self, collection: &str) -> StoreError {
        let why = match self.index() {
            Some((name, _)) if is_of_ids(name) => format!(
                "the collection `{collection}` has a collation, so its index `{name}` treats \
                 different ids as equal; drop the collection and create it without a collation"
            ),
            Some((name, _)) => format!(
                "the unique index `{name}` of the collection `{collection}` refuses a message whose \
                 id is new; drop this index: only message ids may be unique"
            ),
            // The message that had the id may be acked by now.
            None => return StoreError::Uncertain,
        };
        StoreError::Invalid(why)
    }
}

/// Whether the index keeps message ids apart.
fn is_of_ids(index: &str) -> bool {
    ["_id_", Index::Ids.name()].contains(&index)
}

impl StoreError {
    /// The refusal, if the server refused the whole command because of a duplicate key.
    pub(crate) fn into_duplicate(self) -> Result<Refusal, Self> {
        match self.refusal() {
            Some((code @ DUPLICATE_KEY, message)) => Ok(Refusal {
                code,
                message: message.to_owned(),
            }),
            _ => Err(self),
        }
    }
}

impl QueueCollection {
    /// Checks that the queue holds the ids of these refused messages.
    ///
    /// # Errors
    /// It does not hold one: another index has refused the message, or its holder is gone.
    pub(crate) async fn check_duplicates<'a>(
        &self,
        refused: impl Iterator<Item = (&'a MessageId, &'a Refusal)>,
    ) -> Result<(), StoreError> {
        let doubtful: Vec<_> = refused.filter(|(_, it)| !it.is_about_ids()).collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        let ids: Vec<&MessageId> = doubtful.iter().map(|(id, _)| *id).collect();
        let found = self.find(self.holders(&ids), Stored::read).await?;
        let found: Vec<Stored> = found.into_iter().flatten().collect();
        for (id, refusal) in &doubtful {
            // Only equal ids: with a collation, the find returns others too.
            if found.iter().all(|entry| !entry.ids.contains(*id)) {
                return Err(refusal.of_new_id(self.messages.name()));
            }
        }
        let seen: Vec<_> = found.iter().map(|entry| (entry.id, entry.rev)).collect();
        match self.are_at(&seen).await? {
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
            " index: ids_1 dup key: { ids: \" index: x\" }",
            " index: ids_1",
            " index: mine dup key: { ids: \"a\" }",
        ] {
            assert!(says(plain).is_about_ids(), "{plain}");
        }
        for (other, name) in [
            (" index: a b dup key: { a: 1 }", "`a b`"),
            (
                " index: ids_1 collation: { locale: \"en\" } dup key: {}",
                "`ids_1`",
            ),
            (" index: ids_1_2 dup key: { a: 1 }", "`ids_1_2`"),
        ] {
            let refusal = says(other);
            assert!(!refusal.is_about_ids(), "{other}");
            let text = refusal.of_new_id("queue.mail").to_string();
            assert!(text.contains(name) && text.contains("drop"), "{text}");
        }
        // Then nothing tells whether the id was taken.
        let unnamed = says("");
        assert!(!unnamed.is_about_ids());
        assert!(matches!(
            unnamed.of_new_id("queue.mail"),
            StoreError::Uncertain
        ));
    }
}
