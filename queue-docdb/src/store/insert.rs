//! An insert as a plain command, and the server's reply to it.

use std::collections::HashMap;

use mongodb::bson::{Document, doc};

use crate::store::{
    collection::QueueCollection,
    error::{Refusal, StoreError},
    write_reply::{confirmed, integer, refusal},
};

/// The reply to an insert.
#[derive(Debug, Default)]
pub(crate) struct Inserted {
    /// The refused documents, by position.
    pub(crate) refused: HashMap<usize, Refusal>,
    /// Why a majority may not have this yet. A failover may undo it, and also the cause of a refusal.
    pub(crate) unconfirmed: Option<StoreError>,
}

/// Reads the reply to an insert of this many documents.
pub(crate) fn read_insert_reply(reply: &Document, sent: usize) -> Result<Inserted, StoreError> {
    let refused = refused(reply)?;
    match integer(reply.get("n")).and_then(|n| usize::try_from(n).ok()) {
        Some(stored) if stored + refused.len() == sent => Ok(Inserted {
            refused,
            unconfirmed: confirmed(reply, stored as u64).err(),
        }),
        _ => Err(unreadable(reply)),
    }
}

/// The documents that an insert refused, by position. In a transaction, the first one ends the insert.
pub(crate) fn refused(reply: &Document) -> Result<HashMap<usize, Refusal>, StoreError> {
    let errors = reply
        .get_array("writeErrors")
        .map_or(&[][..], Vec::as_slice);
    let refused = errors.iter().map(|error| {
        let error = error.as_document()?;
        let index = integer(error.get("index"))?;
        Some((usize::try_from(index).ok()?, refusal(error)))
    });
    refused
        .collect::<Option<_>>()
        .ok_or_else(|| unreadable(reply))
}

fn unreadable(reply: &Document) -> StoreError {
    StoreError::Unreadable(format!("an insert was answered with {reply}"))
}

impl QueueCollection {
    /// Sends an insert once: after a lost answer it must not be sent again. The driver's own call
    /// sends it twice if the application's client has retryable writes on.
    pub(crate) async fn insert_once(
        &self,
        documents: Vec<Document>,
    ) -> Result<Inserted, StoreError> {
        let sent = documents.len();
        let mut command = self.insert_command(documents);
        command.insert("writeConcern", doc! { "w": "majority" });
        let answer = self.database.run_command(command);
        read_insert_reply(&self.deadline.run(answer).await?, sent)
    }

    pub(crate) fn insert_command(&self, documents: Vec<Document>) -> Document {
        doc! { "insert": self.messages.name(), "documents": documents, "ordered": false }
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
        let inserted = read_insert_reply(&reply, 3).unwrap();
        assert_eq!(inserted.refused[&2].code, 11000);
        let unconfirmed = inserted.unconfirmed.unwrap().to_string();
        assert!(unconfirmed.starts_with("2 documents") && unconfirmed.contains("code 64"));
        let stored = read_insert_reply(&doc! { "ok": 1, "n": 2 }, 2).unwrap();
        assert!(stored.refused.is_empty() && stored.unconfirmed.is_none());
    }

    #[test]
    fn a_reply_that_does_not_account_for_every_document_is_no_success() {
        let refused = doc! { "index": 0, "code": 11000 };
        for reply in [
            doc! { "ok": 1 },
            doc! { "ok": 1, "n": 1 },
            doc! { "ok": 1, "n": 3 },
            doc! { "ok": 1, "n": 0, "writeErrors": [refused] },
            doc! { "ok": 1, "n": 1, "writeErrors": [{ "code": 1 }] },
        ] {
            assert!(read_insert_reply(&reply, 2).is_err(), "{reply}");
        }
    }
}
