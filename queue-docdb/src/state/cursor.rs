//! The head of a queue: where claims start to scan.
//!
//! A message that was leased or acked leaves its key in the index, dead, until the store cleans
//! up: MongoDB keeps the history of five minutes, DocumentDB collects its garbage later. A scan from
//! the beginning passes over each of these keys: after 60,000 messages, a find of ten took eight
//! times as long. So while there is a backlog, claims begin where the last one began.
//!
//! A process with a slower clock, or a long transaction, may write before that point. So every 200 ms
//! a claim scans from the beginning, and so does every claim that found too little.

use std::{sync::Mutex, time::Duration};

use mongodb::bson::DateTime;
use tokio::time::Instant;

use crate::lock::lock;

/// After how long a claim scans from the beginning.
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
    /// When the last scan from the beginning started. What came in later may lie before the head.
    scanned: Instant,
}

impl Cursor {
    /// The ready time from which to scan. `None` is the beginning.
    pub(crate) fn begin(&self) -> Option<DateTime> {
        let known = lock(&self.known).filter(|known| known.scanned.elapsed() < TRUST);
        known.map(|known| known.at)
    }

    /// When the last scan from the beginning started, unless that was forgotten.
    pub(crate) fn scanned(&self) -> Option<Instant> {
        lock(&self.known).map(|known| known.scanned)
    }

    /// Records the first ready time that a scan found. `began`: when it started.
    pub(crate) fn found(&self, from: Option<DateTime>, at: DateTime, began: Instant) {
        let mut known = lock(&self.known);
        let scanned = match (from, *known) {
            (None, _) => began,
            (Some(start), Some(known)) if start <= known.at => known.scanned,
            // Forgotten by a claim that did not find enough, or something came up before it.
            (Some(_), _) => return,
        };
        *known = Some(Known { at, scanned });
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
        // It moves on, but that is no scan from the beginning.
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
