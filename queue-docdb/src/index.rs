//! The two indexes of a queue's collection.

use mongodb::bson::{Document, doc};

/// An index of a queue's collection.
///
/// Finds name it in a hint. Without one, DocumentDB may scan a small collection, and uses a
/// sparse index only for `$exists`. Hints are by keys, because elastic clusters take no names.
/// <https://docs.aws.amazon.com/documentdb/latest/developerguide/best_practices.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// Live messages, by ready time, and by turn within a millisecond.
    Claim,
    /// Dead letters, by id. It is sparse, so live messages cost nothing.
    DeadLetters,
}

impl Index {
    /// Its keys, which are also its order.
    pub(crate) fn keys(self) -> Document {
        match self {
            Self::Claim => doc! { "visible_at": 1, "turn": 1 },
            Self::DeadLetters => doc! { "dead.id": 1 },
        }
    }

    pub(crate) fn specification(self) -> Document {
        // DocumentDB locks the collection during a build in the foreground.
        // https://docs.aws.amazon.com/documentdb/latest/developerguide/user_diagnostics.html
        match self {
            Self::Claim => doc! {
                "key": self.keys(), "name": "visible_at_1_turn_1", "background": true,
            },
            Self::DeadLetters => doc! {
                "key": self.keys(), "name": "dead.id_1", "background": true, "sparse": true,
            },
        }
    }
}
