//! The head of a queue: where claims begin to look.
//!
//! A message that was leased or acked leaves its key in the index, dead, until the store cleans
//! up: MongoDB keeps the history of five minutes, DocumentDB collects its garbage later. All of
//! these keys lie before the first message that is ready, and a look from the beginning of the
//! index passes over each of them: after 60,000 messages, a find of ten took eight times as long.
//! So while there is a backlog, claims begin where the last one began.
//!
//! What is written behind their back, by another clock or a transaction that took its time, may
//! lie before that. So every now and then one looks from the beginning, and so does every claim
//! that did not find enough.

use std::{sync::Mutex, time::Duration};

use mongodb::bson::DateTime;
use tokio::time::Instant;

use crate::lock::lock;

/// After how long one looks from the beginning.
const TRUST: Duration = Duration::from_millis(200);

/// What an instance knows about the head of a queue.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// The ready time of the first message.
    at: DateTime,
    /// When a look from the beginning began. What came in later may lie before the head.
    looked: Instant,
}

impl Cursor {
    /// The ready time from which to look. `None` is the beginning.
    pub(crate) fn begin(&self) -> Option<DateTime> {
        let known = lock(&self.known).filter(|known| known.looked.elapsed() < TRUST);
        known.map(|known| known.at)
    }

    /// When the last look from the beginning began, unless that was forgotten.
    pub(crate) fn looked(&self) -> Option<Instant> {
        lock(&self.known).map(|known| known.looked)
    }

    /// The first message that a look found which began then.
    pub(crate) fn found(&self, from: Option<DateTime>, at: DateTime, began: Instant) {
        let mut known = lock(&self.known);
        let looked = match (from, *known) {
            (None, _) => began,
            (Some(start), Some(known)) if start <= known.at => known.looked,
            // Forgotten by a claim that did not find enough, or something came up before it.
            (Some(_), _) => return,
        };
        *known = Some(Known { at, looked });
    }

    /// There is no backlog, so there is nothing to gain.
    pub(crate) fn forget(&self) {
        *lock(&self.known) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn claims_begin_at_the_head_for_a_while() {
        let cursor = Cursor::default();
        let at = DateTime::from_millis;
        assert_eq!(cursor.begin(), None);
        cursor.found(None, at(5), Instant::now());
        tokio::time::advance(TRUST / 2).await;
        assert_eq!(cursor.begin(), Some(at(5)));
        // It moves on, but that is no look from the beginning.
        cursor.found(Some(at(5)), at(7), Instant::now());
        assert_eq!(cursor.begin(), Some(at(7)));
        tokio::time::advance(TRUST / 2).await;
        assert_eq!(cursor.begin(), None);
        cursor.found(None, at(3), Instant::now());
        assert_eq!(cursor.begin(), Some(at(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_forgotten_is_not_believed_again() {
        let cursor = Cursor::default();
        cursor.found(None, DateTime::from_millis(5), Instant::now());
        let from = cursor.begin();
        cursor.forget();
        // A claim that was under way meanwhile.
        cursor.found(from, DateTime::from_millis(6), Instant::now());
        assert_eq!(cursor.begin(), None);

        // What another claim found before it meanwhile stays the head.
        let earlier = DateTime::from_millis(3);
        cursor.found(None, earlier, Instant::now());
        cursor.found(from, DateTime::from_millis(6), Instant::now());
        assert_eq!(cursor.begin(), Some(earlier));
    }
}
