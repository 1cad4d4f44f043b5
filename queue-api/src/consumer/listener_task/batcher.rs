//! Calls that settle and extend leases, many leases to a call.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::Pin,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use super::leases::{Key, Leases, after};
use crate::{
    Error, ErrorKind, LeaseAction, LeaseChange, LeaseOutcome, Queue, Receipt, Result,
    consumer::{backoff::Backoff, panic::caught},
};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who waits for an outcome, if anybody does.
pub(crate) type Answer = Option<oneshot::Sender<Result<LeaseOutcome>>>;

/// Something to be done to one lease.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) key: Key,
    pub(crate) receipt: Receipt,
    pub(crate) action: Action,
    pub(crate) answer: Answer,
    /// How often it was sent without anybody knowing what became of it.
    pub(crate) failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Ack,
    Change(LeaseAction),
    /// Gives back what nobody has begun to work on. A listener that stops waits for these.
    GiveBackUnstarted,
}

/// One call at a time; while it is under way, the next batch gathers. So an idle listener's
/// settlement goes out at once, and a busy one's share a round trip, without any timer.
#[derive(Debug)]
pub(crate) struct Batcher {
    pub(crate) waiting: VecDeque<Item>,
    flight: Option<Flight>,
    resume_at: Option<SystemTime>,
    backoff: Backoff,
}

struct Flight {
    items: Vec<Item>,
    sent: SystemTime,
    /// When all its leases have run out, and its answer changes nothing any more.
    until: SystemTime,
    call: BoxFuture<Result<Vec<LeaseOutcome>>>,
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flight")
            .field("items", &self.items)
            .finish_non_exhaustive()
    }
}

/// A call that has come to its end.
#[derive(Debug)]
pub(crate) struct Landed {
    pub(crate) items: Vec<Item>,
    pub(crate) sent: SystemTime,
    pub(crate) answer: Result<Vec<LeaseOutcome>>,
}

impl Batcher {
    pub(crate) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            flight: None,
            resume_at: None,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flight.is_none()
    }

    /// What is waiting and under way.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        let flying = self.flight.iter().flat_map(|flight| &flight.items);
        self.waiting.iter().chain(flying)
    }

    /// Whether a call can be sent now.
    pub(crate) fn is_open(&self, now: SystemTime) -> bool {
        self.flight.is_none()
            && !self.waiting.is_empty()
            && self.resume_at.is_none_or(|resume| resume <= now)
    }

    /// When something can be sent that cannot be sent now, or a call is given up.
    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        match &self.flight {
            Some(flight) => Some(flight.until),
            None if self.waiting.is_empty() => None,
            None => self.resume_at,
        }
    }

    /// Sends what is waiting, as much as fits in one call, so that an error in a later call does
    /// not hide the outcomes of an earlier one.
    pub(crate) fn send(&mut self, queue: &Queue, leases: &Leases, now: SystemTime) -> &[Item] {
        let count = self.waiting.len().min(queue.limits().max_batch);
        let items: Vec<_> = self.waiting.drain(..count).collect();
        self.resume_at = None;
        let call = call(queue.clone(), &items);
        let ends = items.iter().map(|item| leases.call_may_last(item.key, now));
        let until = ends.max().unwrap_or(now);
        let flight = Flight {
            items,
            sent: now,
            until,
            call,
        };
        &self.flight.insert(flight).items
    }

    /// Gives up a call that hangs, when no lease is left for which it could do something: whoever
    /// waits for it learns so, and what is behind it is sent. It may take effect all the same.
    pub(crate) fn overdue(&mut self, now: SystemTime) -> Option<Landed> {
        let flight = self.flight.take_if(|flight| flight.until <= now)?;
        let message = "no answer in the time of the leases";
        Some(Landed {
            items: flight.items,
            sent: flight.sent,
            answer: Err(Error::new(ErrorKind::TimedOut, "settle", message)),
        })
    }

    /// The end of the call that is under way. Dropping this leaves the call where it is.
    pub(crate) async fn landed(&mut self) -> Landed {
        let Some(flight) = &mut self.flight else {
            return pending().await;
        };
        let answer = flight.call.as_mut().await;
        let flight = self.flight.take().expect("looked at above");
        if answer.is_ok() {
            self.backoff.reset();
        }
        Landed {
            items: flight.items,
            sent: flight.sent,
            answer,
        }
    }

    /// Puts back what a failed call is to be repeated with, after a pause of at most `most`.
    pub(crate) fn repeat(&mut self, items: Vec<Item>, now: SystemTime, most: Duration) {
        if items.is_empty() {
            return;
        }
        for mut item in items.into_iter().rev() {
            item.failures += 1;
            self.waiting.push_front(item);
        }
        self.resume_at = Some(after(now, self.backoff.next().min(most)));
    }
}

/// One round trip. All acks of a batcher or all changes: the batchers keep them apart.
fn call(queue: Queue, items: &[Item]) -> BoxFuture<Result<Vec<LeaseOutcome>>> {
    let acks = items.iter().all(|item| item.action == Action::Ack);
    let receipts = items.iter().map(|item| item.receipt.clone());
    if acks {
        let receipts: Vec<_> = receipts.collect();
        return unpanicked("ack", async move { queue.ack_chunk(&receipts).await });
    }
    let changes = items.iter().filter_map(|item| {
        let (receipt, action) = (item.receipt.clone(), item.change()?.clone());
        Some(LeaseChange { receipt, action })
    });
    let changes: Vec<_> = changes.collect();
    unpanicked("change", async move { queue.change_chunk(&changes).await })
}

impl Item {
    /// What it changes, unless it is an ack.
    pub(crate) fn change(&self) -> Option<&LeaseAction> {
        match &self.action {
            Action::Ack => None,
            Action::Change(action) => Some(action),
            Action::GiveBackUnstarted => Some(&LeaseAction::Release),
        }
    }
}

/// A call of a backend, whose panic is an error like any other: the leases of all other messages
/// hang on the task that makes it.
pub(crate) fn unpanicked<T: Send + 'static>(
    operation: &'static str,
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> BoxFuture<Result<T>> {
    Box::pin(async move {
        let answer = caught(move || call).await;
        answer.unwrap_or_else(|panic| {
            let message = format!("the backend {panic}");
            Err(Error::new(ErrorKind::Internal, operation, message))
        })
    })
}
