//! An insert as a plain command, and the server's reply to it.

use std::collections::HashMap;

use mongodb::bson::{Document, RawDocumentBuf, doc};

use crate::{
    collection::QueueCollection,
    error::{Refusal, StoreError},
    write_reply::{integer, refusal},
};

/// The reply to an insert.
#[derive(Debug)]
pub(crate) struct Inserted {
    /// The refused documents, by position.
    pub(crate) refused: HashMap<usize, Refusal>,
    /// Why a majority may not have this yet. A failover may undo it, and also the cause of a refusal.
    pub(crate) unconfirmed: Option<Refusal>,
}

/// Reads the reply to an insert.
pub(crate) fn read_insert_reply(reply: &Document) -> Result<Inserted, StoreError> {
    let unreadable = || StoreError::Unreadable(format!("an insert was answered with {reply}"));
    let errors = reply
        .get_array("writeErrors")
        .map_or(&[][..], Vec::as_slice);
    let refused = errors.iter().map(|error| {
        let error = error.as_document()?;
        let index = integer(error.get("index"))?;
        Some((usize::try_from(index).ok()?, refusal(error)))
    });
    Ok(Inserted {
        refused: refused.collect::<Option<_>>().ok_or_else(unreadable)?,
        unconfirmed: reply.get_document("writeConcernError").ok().map(refusal),
    })
}

impl QueueCollection {
    /// Sends an insert once: after a lost answer it must not be sent again. The driver's own call
    /// sends it twice if the application's client has retryable writes on.
    pub(crate) async fn insert_once(
        &self,
        documents: &[&RawDocumentBuf],
    ) -> Result<Inserted, StoreError> {
        let mut command = self.insert_command(documents.iter().copied())?;
        command.insert("writeConcern", doc! { "w": "majority" });
        let sent = self.database.run_command(command);
        read_insert_reply(&self.deadline.run(sent).await?)
    }

    /// The documents are decoded, because the oldest supported driver takes no raw command.
    pub(crate) fn insert_command<'a>(
        &self,
        documents: impl Iterator<Item = &'a RawDocumentBuf>,
    ) -> Result<Document, StoreError> {
        let documents = documents
            .map(|document| Document::try_from(document.as_ref()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| StoreError::Unreadable(error.to_string()))?;
        Ok(doc! { "insert": self.messages.name(), "documents": documents, "ordered": false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_are_read_with_what_was_refused_and_what_is_not_confirmed() {
        let error = doc! { "index": 2, "code": 11000, "errmsg": "E11000" };
        let concern = doc! { "code": 64, "errmsg": "timed out" };
        let reply = doc! {
            "ok": 1, "n": 2, "writeErrors": [error], "writeConcernError": concern,
        };
        let inserted = read_insert_reply(&reply).unwrap();
        assert_eq!(inserted.refused[&2].code, 11000);
        assert_eq!(inserted.unconfirmed.unwrap().code, 64);
        let stored = read_insert_reply(&doc! { "ok": 1, "n": 2 }).unwrap();
        assert!(stored.refused.is_empty() && stored.unconfirmed.is_none());
        assert!(read_insert_reply(&doc! { "writeErrors": [{ "code": 1 }] }).is_err());
    }
}
