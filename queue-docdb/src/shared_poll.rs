//! Looks at a queue that the waits of an instance share.
//!
//! A hundred workers that wait for the same message need one find, not a hundred. When a message is
//! ready, only as many waits return as there are messages. The others look again a little later,
//! because a wait that returned need not lease: its caller may be dropped.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mongodb::bson::DateTime;
use tokio::{
    sync::{Notify, futures::Notified},
    time::{Instant, timeout},
};

/// How long a wait leaves the look to another one, whose caller may not poll it. Then it looks at
/// the same time.
const PATIENCE: Duration = Duration::from_secs(1);

/// The shortest time after which waits look whether a message is still there, for which another
/// wait has returned. A lease call takes a few round trips.
const RECHECK: Duration = Duration::from_millis(50);

/// How many ready messages a look counts at most. Others are seen by the next look.
const MOST: usize = 256;

/// The looks at one queue.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Held by the wait that looks. Tokio's mutex, because that awaits.
    turn: tokio::sync::Mutex<()>,
    /// A std mutex: it is held for a few assignments, never across an await.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many waits there are.
    waiting: usize,
    /// How many looks have begun. They are numbered from 1.
    begun: u64,
    /// The first look that sees the last change.
    needed: u64,
    last: Option<Arc<Look>>,
}

/// What a look saw.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) number: u64,
    /// The first ready times, in order.
    times: Vec<DateTime>,
    ended: Instant,
    took: Duration,
    /// When to look again if nothing is ready.
    pub(crate) next: Instant,
    /// How many claims of this instance were through, if one was under way.
    pub(crate) claims: Option<u64>,
    /// How many waits have returned because of it, and how many may, however few are ready.
    returned: AtomicUsize,
    at_least: usize,
}

/// A wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Looks);

/// A look that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    number: u64,
    began: Instant,
    /// How many ready times it is to find at most.
    pub(crate) limit: usize,
}

impl Looks {
    /// Counts a wait. Returns the number of the first look that serves it, too.
    pub(crate) fn join(&self) -> (Waiting<'_>, u64) {
        let mut state = self.state();
        state.waiting += 1;
        (Waiting(self), state.begun + 1)
    }

    /// A message may be ready sooner than known, so waits look again.
    pub(crate) fn notify(&self) {
        let mut state = self.state();
        state.needed = state.begun + 1;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns at the next change.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// The last look, if it sees the last change and has at least this number.
    pub(crate) fn last(&self, number: u64) -> Option<Arc<Look>> {
        let state = self.state();
        let last = state.last.as_ref();
        let last = last.filter(|look| look.number >= number.max(state.needed));
        last.cloned()
    }

    /// The turn to look, until this is dropped; `None` if another wait takes too long.
    pub(crate) async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        timeout(PATIENCE, self.turn.lock()).await.ok()
    }

    pub(crate) fn begin(&self) -> Begun {
        let mut state = self.state();
        state.begun += 1;
        Begun {
            number: state.begun,
            began: Instant::now(),
            limit: state.waiting.clamp(1, MOST),
        }
    }

    /// Shares what a look found.
    pub(crate) fn end(
        &self,
        begun: Begun,
        times: Vec<DateTime>,
        pause: Duration,
        claims: Option<u64>,
    ) -> Arc<Look> {
        let mut state = self.state();
        // Messages that are still there after a pause: twice as many waits return as before.
        let at_least = match &state.last {
            Some(last) if last.ended + last.recheck_after() <= begun.began => {
                2 * last.returned.load(Ordering::Relaxed)
            }
            _ => 0,
        };
        let ended = Instant::now();
        let look = Arc::new(Look {
            number: begun.number,
            times,
            ended,
            took: ended - begun.began,
            next: ended + pause,
            claims,
            returned: AtomicUsize::new(0),
            at_least,
        });
        if state
            .last
            .as_ref()
            .is_none_or(|last| last.number < look.number)
        {
            state.last = Some(Arc::clone(&look));
        }
        look
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look {
    /// How many messages are ready at this time.
    pub(crate) fn ready(&self, now: DateTime) -> usize {
        self.times.iter().take_while(|time| **time <= now).count()
    }

    /// When the first message becomes ready.
    pub(crate) fn first(&self) -> Option<DateTime> {
        self.times.first().copied()
    }

    /// Whether a wait may return, while so many messages are ready. A wait whose first look this is
    /// may, because it must not sleep while a message is ready.
    pub(crate) fn may_return(&self, ready: usize, is_first: bool) -> bool {
        let most = match is_first {
            true => usize::MAX,
            false => ready.max(self.at_least),
        };
        let one_more = |returned| (returned < most).then_some(returned + 1);
        let returned = &self.returned;
        ready > 0
            && returned
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
                .is_ok()
    }

    /// After which time those that may not return look again. By then, the others have leased.
    pub(crate) fn recheck_after(&self) -> Duration {
        RECHECK.max(10 * self.took)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(looks: &Looks, times: &[i64]) -> Arc<Look> {
        let times = times.iter().copied().map(DateTime::from_millis).collect();
        looks.end(looks.begin(), times, PATIENCE, None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_serves_waits_that_began_before_it_and_see_the_last_change() {
        let looks = Looks::default();
        let (_first, number) = looks.join();
        assert!(looks.last(number).is_none());
        let begun = looks.begin();
        let (_second, late) = looks.join();
        looks.end(begun, Vec::new(), PATIENCE, None);
        assert!(looks.last(number).is_some());
        assert!(looks.last(late).is_none(), "it began before that wait");

        let begun = looks.begin();
        looks.notify();
        looks.end(begun, Vec::new(), PATIENCE, None);
        assert!(looks.last(late).is_none(), "it began before the change");
        assert_eq!(look(&looks, &[]).number, 3);
        assert!(looks.last(late).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_waits_return_as_messages_are_ready_and_twice_as_many_after_each_pause() {
        let looks = Looks::default();
        let now = DateTime::from_millis(5);
        let returned = |look: &Look| {
            let ready = look.ready(now);
            (0..100).filter(|_| look.may_return(ready, false)).count()
        };
        for expected in [2, 4, 8, 16] {
            let seen = look(&looks, &[3, 5, 6]);
            assert_eq!(seen.ready(now), 2);
            assert_eq!(returned(&seen), expected);
            tokio::time::advance(RECHECK).await;
        }
        // Another change, before the pause is over.
        let seen = look(&looks, &[5]);
        assert_eq!(returned(&seen), 32);
        assert_eq!(returned(&look(&looks, &[5])), 1);
        // A new wait returns in any case, but not for what is not ready.
        assert!(seen.may_return(1, true));
        assert!(!look(&looks, &[6]).may_return(0, true));
    }
}
