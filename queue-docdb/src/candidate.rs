//! What a claim finds: messages to deliver, and documents to bury.

use mongodb::bson::{Document, RawDocument, doc};
use queue_api::MessageId;

use crate::{
    document::{self, Stored},
    key::{Key, stand_in_id},
};

/// A ready document.
pub(crate) enum Candidate {
    Live(Stored),
    Dying(Dying),
}

/// A document that is to be buried instead of delivered.
pub(crate) struct Dying {
    pub(crate) key: Key,
    /// What else it must meet, so that it is the document that was found.
    pub(crate) guard: Document,
    pub(crate) id: MessageId,
    /// None: attempts exhausted.
    pub(crate) reason: Option<String>,
    /// Whether the document is so large that nothing can be added to it.
    pub(crate) is_full: bool,
}

/// The largest document that may grow: a lease, a settlement or a burial adds less than the rest
/// of the server's 16 MiB.
const MAX_BYTES: usize = (16 << 20) - (8 << 10);

impl Candidate {
    /// The id, unless another one stands in for it.
    pub(crate) fn id(&self) -> Option<&MessageId> {
        match self {
            Self::Live(stored) => Some(&stored.id),
            Self::Dying(dying) => dying.key.is(&dying.id).then_some(&dying.id),
        }
    }

    pub(crate) fn read(document: &RawDocument) -> Self {
        let is_full = document.as_bytes().len() > MAX_BYTES;
        match document::read(document) {
            Ok(stored) if stored.attempts < stored.max_attempts && !is_full => Self::Live(stored),
            Ok(stored) => Self::Dying(Dying {
                key: Key::of(document),
                guard: doc! { "attempts": i64::from(stored.attempts), "birth": stored.birth },
                id: stored.id,
                reason: None,
                is_full,
            }),
            // Not a message, or not one any more. Left where it is, every claim would meet it.
            Err(damage) => {
                let birth = document::uuid(document, "birth");
                Self::Dying(Dying {
                    key: Key::of(document),
                    guard: birth.map_or(Document::new(), |birth| doc! { "birth": birth }),
                    id: stand_in_id(document),
                    reason: Some(damage.to_string()),
                    is_full,
                })
            }
        }
    }
}

impl Dying {
    /// Only an operator can repair a document. A message without attempts left is not damaged.
    pub(crate) fn log(&self, collection: &str) {
        let id = &self.id;
        if self.is_full {
            tracing::warn!(
                collection, %id,
                "a document is too large to be leased or to become a dead letter; no claim will \
                 find it again; remove it, or purge the queue"
            );
        } else if let Some(reason) = &self.reason {
            tracing::warn!(collection, %id, reason, "a document became a dead letter");
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
        // A condition may also select one of the others, unless that is buried by then.
        met.dying
            .sort_by_key(|dying| matches!(dying.key, Key::Near(_)));
        met
    }
}
