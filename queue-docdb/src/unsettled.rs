//! Claims whose answer never came: what they took is looked for before anything else is leased,
//! so that it need not stay hidden until its visibility timeout has passed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mongodb::bson::Uuid;
use queue_api::MessageId;

use crate::document::Stored;

/// How many are kept, with payloads. What the oldest took comes back by itself.
const MOST: usize = 8;

/// A claim, and what it would have taken.
#[derive(Debug)]
pub(crate) struct Unsettled {
    pub(crate) nonce: Uuid,
    pub(crate) messages: Vec<Stored>,
    /// If it took too long: the messages that it was to write, in the order of its statements.
    pub(crate) held_up: Vec<MessageId>,
}

/// The unsettled claims of this instance.
#[derive(Debug, Default)]
pub(crate) struct UnsettledClaims {
    /// A std mutex: it is held to push or pop, never across an await.
    claims: Mutex<Vec<Unsettled>>,
}

impl UnsettledClaims {
    /// To be called before the claim is sent: unless [`Sent::settle`] is, because of an error
    /// or because the call was dropped, the claim is looked for by the next lease call.
    pub(crate) fn sending(&self, claim: Unsettled) -> Sent<'_> {
        Sent {
            claims: self,
            claim: Some(claim),
        }
    }

    /// Whether there is nothing to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn pop(&self) -> Option<Unsettled> {
        self.lock().pop()
    }

    pub(crate) fn push(&self, claim: Unsettled) {
        if claim.messages.is_empty() && claim.held_up.is_empty() {
            return;
        }
        let mut claims = self.lock();
        if claims.len() == MOST {
            claims.remove(0);
        }
        claims.push(claim);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Unsettled>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim that is under way.
#[derive(Debug)]
pub(crate) struct Sent<'a> {
    claims: &'a UnsettledClaims,
    claim: Option<Unsettled>,
}

impl Sent<'_> {
    pub(crate) fn messages(&self) -> &[Stored] {
        self.claim.as_ref().map_or(&[], |claim| &claim.messages)
    }

    /// Records that the claim took too long.
    pub(crate) fn held_up(mut self, order: Vec<MessageId>) {
        if let Some(claim) = &mut self.claim {
            claim.held_up = order;
        }
    }

    /// The claim's outcome is known: what it would have taken, to sort out what it did.
    pub(crate) fn settle(mut self) -> Vec<Stored> {
        self.claim.take().map_or(Vec::new(), |claim| claim.messages)
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.claims.push(claim);
        }
    }
}
