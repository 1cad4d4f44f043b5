//! The indexes of a queue's collection.

use mongodb::bson::{Bson, Document, doc};

use crate::{
    document::fields::{DEAD_KEY, IDS, PARTED, VISIBLE_AT},
    store::error::StoreError,
};

/// An index of a queue's collection.
///
/// Finds name it in a hint. Without one, DocumentDB may scan a small collection, and uses a
/// sparse index only for `$exists`. Hints are by keys, because elastic clusters take no names.
/// <https://docs.aws.amazon.com/documentdb/latest/developerguide/best_practices.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// Entries with live messages, by ready time.
    Claim,
    /// Message ids. It is unique, so no message is stored twice.
    Ids,
    /// Entries with dead letters, by the death of the first. It is sparse, so live messages cost
    /// nothing.
    DeadLetters,
    /// Parted entries, for stats. It is sparse, too.
    Parted,
}

impl Index {
    /// The unique one last: it may be impossible to make.
    const ALL: [Self; 4] = [Self::Claim, Self::DeadLetters, Self::Parted, Self::Ids];

    /// Those of a queue. If messages are found by `_id`, none on their ids.
    pub(crate) fn of_queue(is_keyed: bool) -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter();
        all.filter(move |index| !(is_keyed && *index == Self::Ids))
    }

    /// Its keys, which are also its order.
    pub(crate) fn keys(self) -> Document {
        match self {
            Self::Claim => doc! { VISIBLE_AT: 1 },
            Self::Ids => doc! { IDS: 1 },
            Self::DeadLetters => doc! { DEAD_KEY: 1 },
            Self::Parted => doc! { PARTED: 1 },
        }
    }

    /// The name that this crate gives it. An index on the same keys may have any.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Claim => "visible_at_1",
            Self::Ids => "ids_1",
            Self::DeadLetters => "dead_key_1",
            Self::Parted => "parted_1",
        }
    }

    pub(crate) fn specification(self) -> Document {
        // DocumentDB locks the collection during a build in the foreground.
        // https://docs.aws.amazon.com/documentdb/latest/developerguide/user_diagnostics.html
        let mut specification =
            doc! { "key": self.keys(), "name": self.name(), "background": true };
        match self {
            Self::Claim => {}
            Self::Ids => drop(specification.insert("unique", true)),
            Self::DeadLetters | Self::Parted => drop(specification.insert("sparse", true)),
        }
        specification
    }

    /// Whether one of the collection's indexes serves as this one.
    ///
    /// # Errors
    /// [`StoreError::Invalid`]: one of them has its keys and does not serve, or has its name and
    /// other keys.
    pub(crate) fn is_among(
        self,
        existing: &[Document],
        collection: &str,
    ) -> Result<bool, StoreError> {
        let ids = existing
            .iter()
            .find(|index| index.get_str("name") == Ok("_id_"));
        let collation = ids.and_then(|index| index.get("collation"));
        let mut is_there = false;
        for index in existing {
            let name = index.get_str("name").unwrap_or_default();
            let problem = match index.get_document("key") {
                Ok(keys) if are_equal(keys, &self.keys()) => {
                    is_there = true;
                    self.problem(index, collation)
                }
                _ if name == self.name() => Some("has other keys than the queue's; drop it"),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(StoreError::Invalid(format!(
                    "the index `{name}` of the collection `{collection}` {problem}"
                )));
            }
        }
        Ok(is_there)
    }

    /// Why an index on the same keys does not serve: a hint fails, or results are not the same.
    fn problem(self, index: &Document, collation: Option<&Bson>) -> Option<&'static str> {
        let is = |option: &str| index.get_bool(option).unwrap_or(false);
        if is("hidden") {
            Some("is hidden; unhide it")
        } else if self != Self::Ids && (is("unique") || is("prepareUnique")) {
            Some("is unique; drop it, and the queue makes its own")
        } else if self == Self::Ids && !is("unique") {
            Some("is not unique; drop it, and the queue makes its own")
        } else if index.contains_key("partialFilterExpression") {
            Some("is partial; drop it, and the queue makes its own")
        } else if index.get("collation") != collation {
            Some("has another collation than the collection; drop it, and the queue makes its own")
        } else if is("sparse") && matches!(self, Self::Claim | Self::Ids) {
            Some("is sparse; drop it, and the queue makes its own")
        } else {
            None
        }
    }
}

/// The same fields in the same order and direction. A shell writes numbers of other types.
fn are_equal(keys: &Document, others: &Document) -> bool {
    fn normal<'a>((field, value): (&'a String, &Bson)) -> (&'a String, Option<f64>) {
        let direction = match value {
            Bson::Int32(number) => Some(f64::from(*number)),
            Bson::Int64(number) => Some(*number as f64),
            Bson::Double(number) => Some(*number),
            _ => None,
        };
        (field, direction)
    }
    keys.iter().map(normal).eq(others.iter().map(normal))
}
