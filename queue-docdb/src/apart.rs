//! Claims of one instance keep apart: each looks behind what the others are about to take.
//!
//! A claim is a find and an update, and whoever looks in between finds the same messages and loses
//! them: two callers that leased batches got less done together than one of them alone. So claims
//! of one instance look one after another, which takes a small part of their time, and pass over
//! what was found by those that are not through.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mongodb::bson::{DateTime, Document, doc};
use queue_api::MessageId;
use tokio::{
    sync::{Mutex, MutexGuard, Notify, futures::Notified},
    time::{Instant, timeout},
};

use crate::head::From;

/// For how long a claim waits at most while others look: hundreds of callers, or one whose server
/// hangs. Then it looks at the same time, and may lose what it finds.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many messages a look passes over: the server fetches each of them, and a command has a
/// largest size. Claims that are under way with more than these compete like those of different
/// instances.
const MOST: usize = 10_000;

/// How long looks pass over a message that has delayed a claim, because an open transaction holds it.
/// Servers end such a transaction after a minute.
const PASS_OVER: Duration = Duration::from_secs(60);

/// The claims of an instance that are under way in a queue.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    /// Held by the claim that looks. Tokio's mutex, as the look awaits; it serves callers in the
    /// order in which they came.
    looking: Mutex<()>,
    /// A std mutex: it is held to add, remove or copy, never across an await.
    found: std::sync::Mutex<Vec<Spots>>,
    /// Messages that have delayed a claim, and when looks find them again. A std mutex, too.
    passed_over: std::sync::Mutex<Vec<(Instant, MessageId)>>,
    /// How many claims are through that were about to take messages.
    claims: AtomicU64,
    /// Told when a claim is through. What it was about to take is somebody's then, or there for
    /// others.
    through: Notify,
}

/// What one claim found: ready times and ids.
type Spots = Arc<[(DateTime, MessageId)]>;

impl Apart {
    /// A claim's turn to look, until this is dropped, or nothing if others take too long.
    pub(crate) async fn turn(&self, at_most: Duration) -> Option<MutexGuard<'_, ()>> {
        let at_most = at_most.min(PATIENCE);
        timeout(at_most, self.looking.lock()).await.ok()
    }

    /// How many claims are through that were about to take messages.
    pub(crate) fn claims(&self) -> u64 {
        self.claims.load(Ordering::SeqCst)
    }

    /// Returns when the next claim is through.
    pub(crate) fn through(&self) -> Notified<'_> {
        self.through.notified()
    }

    /// Lets looks pass over these messages for [`PASS_OVER`].
    pub(crate) fn pass_over(&self, ids: impl IntoIterator<Item = MessageId>) {
        let until = Instant::now() + PASS_OVER;
        let ids = ids.into_iter().map(|id| (until, id));
        self.passed_over().extend(ids);
    }

    /// When looks find the next message again that they pass over now.
    pub(crate) fn next_return(&self) -> Option<Instant> {
        self.passed_over().iter().map(|(until, _)| *until).min()
    }

    /// Whether a claim is about to take messages.
    pub(crate) fn is_busy(&self) -> bool {
        !self.found().is_empty()
    }

    /// Whether there are messages that have delayed a claim.
    pub(crate) fn passes_over(&self) -> bool {
        !self.passed_over().is_empty()
    }

    fn passed_over(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, MessageId)>> {
        let passed_over = self.passed_over.lock();
        let mut passed_over = passed_over.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        passed_over.retain(|(until, _)| now < *until);
        passed_over
    }

    /// Selects what no claim is about to take, from there on, and nothing that is passed over.
    pub(crate) fn filter(&self, from: From) -> Document {
        let passed_over = self.passed_over();
        let found = self.found();
        // The latest first, because a call that looks again must not meet what it has leased.
        let spots = found.iter().rev().flat_map(|spots| spots.iter());
        let taken = spots
            .filter(|(ready_at, _)| from <= From::Head(*ready_at))
            .map(|(_, id)| id);
        let ids: Vec<&str> = passed_over
            .iter()
            .map(|(_, id)| id)
            .chain(taken)
            .map(MessageId::as_str)
            .take(MOST)
            .collect();
        match ids.is_empty() {
            true => Document::new(),
            false => doc! { "_id": { "$nin": ids } },
        }
    }

    /// Keeps other claims away from what one has found, until this is dropped.
    pub(crate) fn keep(
        &self,
        found: impl IntoIterator<Item = (Option<DateTime>, MessageId)>,
    ) -> Kept<'_> {
        let found = found.into_iter();
        // One without a readable time is left out wherever a look begins.
        let spots: Spots = found
            .map(|(ready_at, id)| (ready_at.unwrap_or(DateTime::MAX), id))
            .collect();
        if !spots.is_empty() {
            self.found().push(spots.clone());
        }
        Kept { apart: self, spots }
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Vec<Spots>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a claim has found, until it is through.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    apart: &'a Apart,
    spots: Spots,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if self.spots.is_empty() {
            return;
        }
        // Before the messages can be found again.
        self.apart.claims.fetch_add(1, Ordering::SeqCst);
        let mut found = self.apart.found();
        found.retain(|spots| !Arc::ptr_eq(spots, &self.spots));
        drop(found);
        self.apart.through.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::Bson;

    use super::*;

    fn spots(at: Option<i64>, ids: &[&str]) -> Vec<(Option<DateTime>, MessageId)> {
        let id = |id: &&str| MessageId::new(id).expect("valid");
        let at = at.map(DateTime::from_millis);
        ids.iter().map(|text| (at, id(text))).collect()
    }

    fn left_out(apart: &Apart, from: From) -> Vec<String> {
        let filter = apart.filter(from);
        let ids = filter.get_document("_id").map(|id| id.get_array("$nin"));
        let ids = ids.into_iter().flatten().flatten();
        let mut ids: Vec<_> = ids.filter_map(Bson::as_str).map(str::to_owned).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn what_a_claim_has_found_is_left_out_until_it_is_through() {
        let apart = Apart::default();
        assert!(apart.filter(From::Beginning).is_empty());
        let first = apart.keep(spots(Some(1), &["a", "b"]));
        let second = apart.keep(spots(Some(3), &["c"]));
        let nothing = apart.keep(Vec::new());
        assert_eq!(left_out(&apart, From::Beginning), ["a", "b", "c"]);
        // Whoever begins behind the first ones need not be told of them.
        let from = |at| From::Head(DateTime::from_millis(at));
        assert_eq!(left_out(&apart, from(1)), ["a", "b", "c"]);
        assert_eq!(left_out(&apart, from(2)), ["c"]);
        drop(nothing);
        assert_eq!(apart.claims(), 0, "it was not about to take anything");
        drop(first);
        assert_eq!(apart.claims(), 1);
        assert_eq!(left_out(&apart, From::Beginning), ["c"]);
        drop(second);
        assert!(apart.filter(From::Beginning).is_empty());
        let _somewhere = apart.keep(spots(None, &["d"]));
        assert_eq!(left_out(&apart, from(9)), ["d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_delayed_a_claim_is_passed_over_for_a_while() {
        let apart = Apart::default();
        apart.pass_over([MessageId::new("a").expect("valid")]);
        assert_eq!(left_out(&apart, From::Beginning), ["a"]);
        assert_eq!(left_out(&apart, From::Head(DateTime::MAX)), ["a"]);
        assert!(!apart.is_busy());
        assert_eq!(apart.next_return(), Some(Instant::now() + PASS_OVER));
        tokio::time::advance(PASS_OVER).await;
        assert!(apart.filter(From::Beginning).is_empty());
        assert_eq!(apart.next_return(), None);
    }

    #[test]
    fn what_is_left_out_fits_into_a_command() {
        let apart = Apart::default();
        let ids: Vec<String> = (0..MOST + 1).map(|n| n.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let _kept = apart.keep(spots(Some(1), &ids));
        assert_eq!(left_out(&apart, From::Beginning).len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn claims_look_one_after_another_unless_it_takes_too_long() {
        let apart = Apart::default();
        let first = apart.turn(PATIENCE * 2).await.expect("nobody looks");
        for (at_most, waits) in [(PATIENCE * 2, PATIENCE), (PATIENCE / 2, PATIENCE / 2)] {
            let began = Instant::now();
            assert!(apart.turn(at_most).await.is_none());
            assert_eq!(began.elapsed(), waits);
        }
        let (second, ()) = tokio::join!(apart.turn(PATIENCE), async { drop(first) });
        assert!(second.is_some());
    }
}
