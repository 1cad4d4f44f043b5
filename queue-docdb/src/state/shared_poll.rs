//! Polls of a queue that the waits of an instance share.
//!
//! A hundred workers that wait for the same message need one find, not a hundred. When a message is
//! ready, only as many waits return as there are messages. The others poll again a little later,
//! because a wait that returned need not lease: its caller may be dropped.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mongodb::bson::DateTime;
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use crate::{lock::lock, store::pause::real_time};

/// How long waits rely on a poll of one of them. That wait may not be polled. After this time,
/// another wait polls.
pub(crate) const TURN_TIMEOUT: Duration = Duration::from_secs(1);

/// The shortest pause before waits check that the message was leased. A lease call takes a few round
/// trips.
const RECHECK: Duration = Duration::from_millis(50);

/// The longest such pause. It equals the longest pause between polls.
const LONGEST_RECHECK: Duration = Duration::from_secs(2);

/// The pause after the first poll that found nothing. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest such pause. An idle consumer sends less than one command a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many ready messages a poll counts at most. Others are seen by the next poll.
const MOST: usize = 256;

/// The polls of one queue.
#[derive(Debug, Default)]
pub(crate) struct SharedPoll {
    state: Mutex<State>,
    changed: Notify,
    /// Notified when a poll has ended or was dropped.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many waits there are.
    waiting: usize,
    /// How many polls have begun. They are numbered from 1.
    begun: u64,
    /// The first poll that sees the last change.
    needed: u64,
    /// The number of the poll that others wait for, and when it began.
    under_way: Option<(u64, Instant)>,
    last: Option<Arc<PollResult>>,
    /// How many polls in a row have found nothing. It outlives a wait, because a consumer waits again and
    /// again.
    empty: u32,
}

/// What a poll saw.
#[derive(Debug)]
pub(crate) struct PollResult {
    pub(crate) number: u64,
    /// The first ready times, in order.
    times: Vec<DateTime>,
    ended: Instant,
    took: Duration,
    /// When to poll again if nothing is ready.
    pub(crate) next: Instant,
    /// Waits that this poll has ended.
    returned: AtomicUsize,
    /// How many waits it may end, even if fewer messages are ready.
    at_least: usize,
}

/// A wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct WaitGuard<'a>(&'a SharedPoll);

/// A poll that has begun, until it ends or is dropped.
#[derive(Debug)]
pub(crate) struct PollInFlight<'a> {
    shared: &'a SharedPoll,
    number: u64,
    began: Instant,
    /// How many ready times it is to find at most.
    pub(crate) limit: usize,
}

/// How a wait gets the result of a poll.
#[derive(Debug)]
pub(crate) enum Permit<'a> {
    /// Another wait has polled.
    Shared(Arc<PollResult>),
    /// This wait polls.
    Poll(PollInFlight<'a>),
}

impl SharedPoll {
    /// Counts a wait. Returns the number of the first poll that serves it, too.
    pub(crate) fn join(&self) -> (WaitGuard<'_>, u64) {
        let mut state = lock(&self.state);
        state.waiting += 1;
        (WaitGuard(self), state.begun + 1)
    }

    /// A message may be ready sooner than known, so waits poll again.
    pub(crate) fn notify(&self) {
        let mut state = lock(&self.state);
        state.needed = state.begun + 1;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns at the next change.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// A result that sees the last change and has at least this number, or the permit to poll.
    ///
    /// Waits for the poll under way until `timeout` after its begin. Then one of those that wait
    /// polls, and the others wait for that.
    pub(crate) async fn permit(&self, number: u64, timeout: Duration) -> Permit<'_> {
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            let until = {
                let mut state = lock(&self.state);
                if let Some(last) = state.last(number) {
                    return Permit::Shared(last);
                }
                let until = state.under_way.map(|(_, began)| began + timeout);
                match until.filter(|until| Instant::now() < *until) {
                    Some(until) => until,
                    None => return Permit::Poll(self.begin(&mut state)),
                }
            };
            tokio::select! {
                () = ended => {}
                () = real_time(until) => {}
            }
        }
    }

    /// A message is ready, so that the next pause is a short one.
    pub(crate) fn reset_pause(&self) {
        lock(&self.state).empty = 0;
    }

    /// How long to pause after a poll that found nothing.
    pub(crate) fn next_pause(&self) -> Duration {
        let mut state = lock(&self.state);
        let doubled = FIRST_PAUSE * (1 << state.empty.min(16));
        state.empty += 1;
        doubled.min(LONGEST_PAUSE)
    }

    fn begin(&self, state: &mut State) -> PollInFlight<'_> {
        let began = Instant::now();
        state.begun += 1;
        state.under_way = Some((state.begun, began));
        PollInFlight {
            shared: self,
            number: state.begun,
            began,
            limit: state.waiting.clamp(1, MOST),
        }
    }
}

impl State {
    fn last(&self, number: u64) -> Option<Arc<PollResult>> {
        let number = number.max(self.needed);
        let last = self.last.as_ref();
        last.filter(|result| result.number >= number).cloned()
    }
}

impl PollInFlight<'_> {
    /// Shares what the poll found.
    pub(crate) fn end(self, times: Vec<DateTime>, pause: Duration) -> Arc<PollResult> {
        let mut state = lock(&self.shared.state);
        // Messages that are still there after a pause: twice as many waits return as before.
        let at_least = match &state.last {
            Some(last) if last.ended + last.recheck_after() <= self.began => {
                2 * last.returned.load(Ordering::Relaxed)
            }
            _ => 0,
        };
        let ended = Instant::now();
        let result = Arc::new(PollResult {
            number: self.number,
            times,
            ended,
            took: ended - self.began,
            next: ended + pause,
            returned: AtomicUsize::new(0),
            at_least,
        });
        let last = state.last.as_ref();
        if last.is_none_or(|last| last.number < result.number) {
            state.last = Some(Arc::clone(&result));
        }
        result
    }
}

impl Drop for PollInFlight<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        // Another wait may have taken over.
        if state
            .under_way
            .is_some_and(|(number, _)| number == self.number)
        {
            state.under_way = None;
        }
        drop(state);
        self.shared.ended.notify_waiters();
    }
}

impl PollResult {
    /// How many entries are ready at this time.
    pub(crate) fn ready(&self, now: DateTime) -> usize {
        self.times.iter().take_while(|time| **time <= now).count()
    }

    /// When the first message becomes ready.
    pub(crate) fn first(&self) -> Option<DateTime> {
        self.times.first().copied()
    }

    /// Whether a wait may return, while so many messages are ready. A wait whose first poll this is
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

    /// After which time those that may not return poll again. By then, the others have leased.
    pub(crate) fn recheck_after(&self) -> Duration {
        (10 * self.took).clamp(RECHECK, LONGEST_RECHECK)
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::join_all};

    use super::*;

    async fn begin(shared: &SharedPoll, number: u64) -> PollInFlight<'_> {
        match shared.permit(number, TURN_TIMEOUT).await {
            Permit::Poll(poll) => poll,
            Permit::Shared(result) => panic!("{number} is served by {result:?}"),
        }
    }

    async fn poll(shared: &SharedPoll, times: &[i64]) -> Arc<PollResult> {
        let times = times.iter().copied().map(DateTime::from_millis).collect();
        let poll = begin(shared, u64::MAX).await;
        poll.end(times, TURN_TIMEOUT)
    }

    fn is_served(shared: &SharedPoll, number: u64) -> bool {
        lock(&shared.state).last(number).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_serves_waits_that_began_before_it_and_see_the_last_change() {
        let shared = SharedPoll::default();
        let (_first, number) = shared.join();
        assert!(!is_served(&shared, number));
        let first = begin(&shared, number).await;
        let (_second, late) = shared.join();
        first.end(Vec::new(), TURN_TIMEOUT);
        assert!(is_served(&shared, number));
        assert!(!is_served(&shared, late), "it began before that wait");

        let second = begin(&shared, late).await;
        shared.notify();
        second.end(Vec::new(), TURN_TIMEOUT);
        assert!(!is_served(&shared, late), "it began before the change");
        assert_eq!(poll(&shared, &[]).await.number, 3);
        assert!(is_served(&shared, late));
    }

    #[tokio::test(start_paused = true)]
    async fn one_wait_takes_over_from_a_poll_that_takes_too_long() {
        let shared = SharedPoll::default();
        let slow = begin(&shared, 1).await;
        let began = Instant::now();
        for number in 2..5 {
            let mut permits: Vec<_> = (0..9)
                .map(|_| Box::pin(shared.permit(1, TURN_TIMEOUT)))
                .collect();
            let polls = futures::future::select_all(&mut permits).await.0;
            let Permit::Poll(over) = polls else {
                panic!("{polls:?}")
            };
            assert_eq!(over.number, number);
            assert_eq!(began.elapsed(), TURN_TIMEOUT * (number as u32 - 1));
            // No wait polls it either.
            std::mem::forget(over);
        }
        // The slow poll ends after all, and serves those that wait.
        let waits = (0..9).map(|_| shared.permit(1, TURN_TIMEOUT));
        let (served, _) = tokio::join!(join_all(waits), async {
            slow.end(Vec::new(), TURN_TIMEOUT)
        });
        for permit in served {
            assert!(matches!(permit, Permit::Shared(result) if result.number == 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_a_poll_is_dropped_one_wait_takes_over_at_once() {
        let shared = SharedPoll::default();
        let dropped = begin(&shared, 1).await;
        let mut waits: Vec<_> = (0..9)
            .map(|_| Box::pin(shared.permit(1, TURN_TIMEOUT)))
            .collect();
        for wait in &mut waits {
            assert!(wait.now_or_never().is_none());
        }
        drop(dropped);
        let permits: Vec<_> = waits.iter_mut().map(FutureExt::now_or_never).collect();
        let taken = permits.iter().flatten().count();
        assert_eq!(taken, 1, "{permits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_waits_return_as_messages_are_ready_and_twice_as_many_after_each_pause() {
        let shared = SharedPoll::default();
        let now = DateTime::from_millis(5);
        let returned = |result: &PollResult| {
            let ready = result.ready(now);
            (0..100).filter(|_| result.may_return(ready, false)).count()
        };
        for expected in [2, 4, 8, 16] {
            let seen = poll(&shared, &[3, 5, 6]).await;
            assert_eq!(seen.ready(now), 2);
            assert_eq!(returned(&seen), expected);
            tokio::time::advance(RECHECK).await;
        }
        // Another change, before the pause is over.
        let seen = poll(&shared, &[5]).await;
        assert_eq!(returned(&seen), 32);
        assert_eq!(returned(&*poll(&shared, &[5]).await), 1);
        // A new wait returns in any case, but not for what is not ready.
        assert!(seen.may_return(1, true));
        assert!(!poll(&shared, &[6]).await.may_return(0, true));
    }
}
