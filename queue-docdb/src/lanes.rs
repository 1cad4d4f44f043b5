//! Lanes: parts of a queue that callers who compete for its messages keep to, each in a lane of its
//! own for a while.
//!
//! Claims that all begin at the head of a queue fight for the same documents: four processes
//! together get a fraction of what one gets alone. A message's lane is the remainder of its turn,
//! which is fixed when it is enqueued, so the lanes of a queue are equally long, and their heads of
//! one age. An index on time and turn serves both: whoever is alone reads it in order, and whoever
//! keeps to a lane passes over the keys of the others, on MongoDB without a look at their documents.
//!
//! Rivals are noticed by what claims lose to them, so one process alone never pays for lanes.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use mongodb::bson::{Document, doc};
use tokio::time::Instant;

/// Into how many lanes a queue is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lanes(u32);

impl Lanes {
    /// Each is a key more to pass over.
    pub(crate) const MOST: Self = Self(16);

    pub(crate) fn new(count: usize) -> Option<Self> {
        let count = u32::try_from(count).ok()?;
        (1..=Self::MOST.0).contains(&count).then_some(Self(count))
    }

    pub(crate) fn count(self) -> usize {
        self.0 as usize
    }
}

/// Numbers the messages that an instance sends to a queue.
#[derive(Debug)]
pub(crate) struct Turns(AtomicU32);

impl Default for Turns {
    /// Begins anywhere, so that the lanes are equally long also where each instance sends few.
    fn default() -> Self {
        Self(AtomicU32::new(fastrand::u32(..)))
    }
}

impl Turns {
    /// It begins anew after two thousand million, as a negative number is in no lane.
    pub(crate) fn next(&self) -> i32 {
        (self.0.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff) as i32
    }
}

/// For how long claims keep to lanes after the first loss. Then one looks whether there still
/// are rivals, by a claim at the head: they notice that too.
const FIRST_CAUTION: Duration = Duration::from_millis(250);

/// For how long at most: after competing, an instance may be alone for so long before it takes
/// messages in order of ready time again.
const LONGEST_CAUTION: Duration = Duration::from_secs(1);

/// What an instance knows about its rivals for a queue.
#[derive(Debug, Default)]
pub(crate) struct Rivals {
    /// A std mutex: it is held for a few words, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when claims keep to lanes.
    until: Option<Instant>,
    /// For how long they last did.
    caution: Duration,
    /// The lane after the one that was taken last.
    next: u32,
    /// The lanes that claims of this instance are at, a bit for each.
    taken: u32,
}

impl Rivals {
    /// A claim lost messages to somebody else.
    pub(crate) fn notice(&self) {
        let mut state = self.state();
        // Whoever won goes on to the next lane, so this one must not.
        state.next = fastrand::u32(0..Lanes::MOST.0);
        let now = Instant::now();
        if state.until.is_some_and(|until| now < until) {
            return;
        }
        // Somebody who was noticed again and again is there to stay.
        state.caution = (state.caution * 2).clamp(FIRST_CAUTION, LONGEST_CAUTION);
        state.until = Some(now + state.caution);
    }

    /// A claim took messages at the head of the queue and lost none.
    pub(crate) fn miss(&self) {
        let mut state = self.state();
        state.until = None;
        state.caution = Duration::ZERO;
    }

    /// A lane to keep to, while there are rivals.
    ///
    /// Claims go from lane to lane, so that messages of all lanes wait for about as long.
    pub(crate) fn lane(&self, lanes: Lanes) -> Option<Lane<'_>> {
        let Lanes(count) = lanes;
        if count == 1 {
            return None;
        }
        let mut state = self.state();
        state.until.filter(|&until| Instant::now() < until)?;
        let ahead = (0..count).map(|step| (state.next + step) % count);
        let free = ahead.clone().find(|lane| state.taken & (1 << lane) == 0);
        let number = free.unwrap_or(state.next % count);
        state.next = (number + 1) % count;
        state.taken |= 1 << number;
        Some(Lane {
            rivals: self,
            number,
            count,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane that other claims of this instance stay away from, if they can, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    rivals: &'a Rivals,
    number: u32,
    count: u32,
}

impl Lane<'_> {
    /// Selects its messages.
    pub(crate) fn filter(&self) -> Document {
        doc! { "turn": { "$mod": [self.count, self.number] } }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.rivals.state().taken &= !(1 << self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(lane: Option<Lane<'_>>) -> Option<u32> {
        lane.map(|lane| lane.number)
    }

    #[test]
    fn there_are_one_to_sixteen_lanes() {
        for count in [1, 4, 16] {
            assert_eq!(Lanes::new(count).map(Lanes::count), Some(count));
        }
        for count in [0, 17, usize::MAX] {
            assert_eq!(Lanes::new(count), None);
        }
    }

    #[test]
    fn turns_are_never_negative() {
        let turns = Turns(AtomicU32::new(i32::MAX as u32));
        assert_eq!([turns.next(), turns.next(), turns.next()], [i32::MAX, 0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn claims_keep_to_lanes_for_a_while_after_a_loss() {
        let rivals = Rivals::default();
        assert!(rivals.lane(Lanes::MOST).is_none(), "nobody was noticed");
        rivals.notice();
        assert!(rivals.lane(Lanes::MOST).is_some());
        assert!(rivals.lane(Lanes(1)).is_none(), "there is but one");
        tokio::time::advance(FIRST_CAUTION).await;
        assert!(rivals.lane(Lanes::MOST).is_none(), "time to look again");
        // They are still there, so the next look is later, but never later than the longest.
        rivals.notice();
        tokio::time::advance(FIRST_CAUTION).await;
        assert!(rivals.lane(Lanes::MOST).is_some());
        for _ in 0..9 {
            tokio::time::advance(LONGEST_CAUTION).await;
            assert!(rivals.lane(Lanes::MOST).is_none());
            rivals.notice();
        }
        // They are gone.
        tokio::time::advance(LONGEST_CAUTION).await;
        rivals.miss();
        rivals.notice();
        tokio::time::advance(FIRST_CAUTION).await;
        assert!(rivals.lane(Lanes::MOST).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn claims_of_one_instance_take_turns_at_the_lanes() {
        let rivals = Rivals::default();
        rivals.notice();
        let four = Lanes(4);
        let held: Vec<_> = (0..4).map(|_| rivals.lane(four).expect("a lane")).collect();
        let mut numbers: Vec<u32> = held.iter().map(|lane| lane.number).collect();
        let first = numbers[0];
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert!(rivals.lane(four).is_some(), "more claims than lanes");
        drop(held);
        let again: Vec<_> = (0..4).map(|_| number(rivals.lane(four))).collect();
        let mut distinct = again.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(
            distinct.len(),
            4,
            "one after another from {first}: {again:?}"
        );
    }
}
