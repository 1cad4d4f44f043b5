//! What a claim finds: messages to deliver, and documents to bury.

use mongodb::bson::{Document, RawDocument, doc};
use queue_api::MessageId;

use crate::document::{self, Stored};

/// A ready document.
pub(crate) enum Candidate {
    Live(Stored),
    Dying(Dying),
}

/// A document that is to be buried instead of delivered.
pub(crate) struct Dying {
    pub(crate) filter: Document,
    pub(crate) id: MessageId,
    /// None: attempts exhausted.
    pub(crate) reason: Option<String>,
}

impl Candidate {
    /// The id, unless another one stands in for it.
    pub(crate) fn id(&self) -> Option<&MessageId> {
        match self {
            Self::Live(stored) => Some(&stored.id),
            Self::Dying(dying) => dying.filter.get_str("_id").ok().map(|_| &dying.id),
        }
    }

    /// `None` for a document that no command could name, because its `_id` is not valid BSON.
    pub(crate) fn read(document: &RawDocument) -> Option<Self> {
        match document::read(document) {
            Ok(stored) if stored.attempts < stored.max_attempts => Some(Self::Live(stored)),
            Ok(stored) => Some(Self::Dying(Dying {
                filter: doc! {
                    "_id": stored.id.as_str(),
                    "attempts": i64::from(stored.attempts),
                    "birth": stored.birth,
                },
                id: stored.id,
                reason: None,
            })),
            // Not a message, or not one any more. Left where it is, every claim would meet it.
            Err(damage) => {
                let id = document::any_id(document)?;
                let mut filter = doc! { "_id": { "$eq": id.clone() } };
                if let Some(birth) = document::uuid(document, "birth") {
                    filter.insert("birth", birth);
                }
                Some(Self::Dying(Dying {
                    filter,
                    id: document::stand_in_id(&id),
                    reason: Some(damage.to_string()),
                }))
            }
        }
    }
}

/// What a claim meets in order until it has enough; it leaves alone what lies behind.
pub(crate) struct Met {
    pub(crate) live: Vec<Stored>,
    pub(crate) dying: Vec<Dying>,
}

impl Met {
    pub(crate) fn in_order(candidates: Vec<Candidate>, wanted: usize) -> Self {
        let mut met = Self {
            live: Vec::new(),
            dying: Vec::new(),
        };
        for candidate in candidates {
            if met.live.len() == wanted {
                break;
            }
            match candidate {
                Candidate::Live(stored) => met.live.push(stored),
                Candidate::Dying(dying) => met.dying.push(dying),
            }
        }
        met
    }
}
