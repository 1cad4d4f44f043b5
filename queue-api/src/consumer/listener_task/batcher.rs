//! Batched calls that settle and extend leases.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, pending},
    pin::Pin,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use super::{
    leases::{Key, Leases, after},
    poller::{CALL_GRACE, LONGEST_CALL},
};
use crate::{
    Error, ErrorKind, LeaseAction, LeaseChange, LeaseOutcome, Queue, Receipt, Result,
    catch_panic::backend_call, consumer::backoff::Backoff,
};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where the outcome goes, if a future waits for it.
pub(crate) type Answer = Option<oneshot::Sender<Result<LeaseOutcome>>>;

/// One settlement or extension of a batch.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) key: Key,
    pub(crate) receipt: Receipt,
    pub(crate) action: Action,
    pub(crate) answer: Answer,
    /// The error of the last call, which may have carried it out.
    pub(crate) failure: Option<Error>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Ack,
    Change(LeaseAction),
    /// Releases a lease that was not handed out. A stop of the listener waits for these.
    ReleaseUnstarted,
}

/// Makes one call at a time. The next batch gathers while a call is in flight, so an idle listener
/// settles at once and a busy one shares round trips, without a timer.
#[derive(Debug)]
pub(crate) struct Batcher {
    pub(crate) waiting: VecDeque<Item>,
    in_flight: Option<InFlight>,
    resume_at: Option<SystemTime>,
    backoff: Backoff,
}

struct InFlight {
    items: Vec<Item>,
    sent: SystemTime,
    /// When all its leases have expired, so that the answer no longer matters.
    ends: SystemTime,
    /// When it is given up, once it is overdue.
    deadline: Option<SystemTime>,
    call: BoxFuture<Result<Vec<LeaseOutcome>>>,
}

impl InFlight {
    /// When the call is overdue, or given up: other settlements wait for it.
    fn due(&self) -> SystemTime {
        let overdue = || after(self.sent, LONGEST_CALL);
        self.deadline.unwrap_or_else(overdue).min(self.ends)
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("items", &self.items)
            .finish_non_exhaustive()
    }
}

/// A call that has returned or was given up.
#[derive(Debug)]
pub(crate) struct Completed {
    pub(crate) items: Vec<Item>,
    pub(crate) sent: SystemTime,
    pub(crate) answer: Result<Vec<LeaseOutcome>>,
}

impl Batcher {
    pub(crate) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: None,
            resume_at: None,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none()
    }

    /// Items that wait or are in flight.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        let in_flight = self.in_flight.iter().flat_map(|call| &call.items);
        self.waiting.iter().chain(in_flight)
    }

    /// Whether there is something to send and it can be sent now.
    pub(crate) fn can_send(&self, now: SystemTime) -> bool {
        self.in_flight.is_none()
            && !self.waiting.is_empty()
            && self.resume_at.is_none_or(|resume| resume <= now)
    }

    /// When the next call can be sent, or the call in flight is given up.
    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        match &self.in_flight {
            Some(call) => Some(call.due()),
            None if self.waiting.is_empty() => None,
            None => self.resume_at,
        }
    }

    /// Sends as many waiting items as fit in one backend call. Splitting them into several calls
    /// here would let an error of the second hide the outcomes of the first.
    pub(crate) fn send(&mut self, queue: &Queue, leases: &Leases, now: SystemTime) -> &[Item] {
        let shared = self.waiting.iter().take_while(|item| !item.goes_alone());
        let count = shared.count().clamp(1, queue.limits().max_batch.get());
        let items: Vec<_> = self.waiting.drain(..count).collect();
        self.resume_at = None;
        let call = call(queue.clone(), &items);
        let ends = items.iter().map(|item| leases.call_deadline(item.key, now));
        let ends = ends.max().unwrap_or(now);
        let in_flight = InFlight {
            sent: now,
            ends,
            deadline: None,
            items,
            call,
        };
        &self.in_flight.insert(in_flight).items
    }

    /// Gives up a call after 70 seconds, or when its leases have expired, whichever is first. It may still take
    /// effect.
    pub(crate) fn take_overdue(&mut self, now: SystemTime) -> Option<Completed> {
        let call = self.in_flight.as_mut().filter(|call| call.due() <= now)?;
        if call.deadline.is_none() && now < call.ends {
            call.deadline = Some(after(now, CALL_GRACE));
            return None;
        }
        let call = self.in_flight.take()?;
        let message = "the store did not answer in time";
        let error = Error::new(ErrorKind::TimedOut, operation(&call.items), message);
        Some(self.complete(call, Err(error)))
    }

    /// Takes all items. A call in flight is dropped, and may still take effect.
    pub(crate) fn take_all(&mut self) -> Vec<Item> {
        let in_flight = self.in_flight.take().map(|call| call.items);
        let mut items = in_flight.unwrap_or_default();
        items.extend(self.waiting.drain(..));
        items
    }

    /// Waits for the call in flight. Dropping this future does not drop the call.
    pub(crate) async fn completed(&mut self) -> Completed {
        let Some(in_flight) = &mut self.in_flight else {
            return pending().await;
        };
        let answer = in_flight.call.as_mut().await;
        let call = self.in_flight.take().expect("it was in flight above");
        self.complete(call, answer)
    }

    fn complete(&mut self, mut call: InFlight, answer: Result<Vec<LeaseOutcome>>) -> Completed {
        match &answer {
            Ok(_) => self.backoff.reset(),
            // A store that is away would hold up each item in turn, so they share a call again.
            Err(error) if error.is_retryable() => {
                let alone = self.waiting.iter().take_while(|item| item.goes_alone());
                let alone = alone.count();
                call.items.extend(self.waiting.drain(..alone));
            }
            Err(_) => {}
        }
        Completed {
            items: call.items,
            sent: call.sent,
            answer,
        }
    }

    /// Queues the items of a failed call again, after a pause of at most `max_pause`.
    pub(crate) fn repeat(&mut self, items: Vec<Item>, now: SystemTime, max_pause: Duration) {
        if items.is_empty() {
            return;
        }
        if let [item] = &items[..]
            && item.goes_alone()
            && item.answer.is_none()
        {
            // A renewal that keeps failing must not hold up the others.
            self.waiting.extend(items);
        } else {
            for item in items.into_iter().rev() {
                self.waiting.push_front(item);
            }
        }
        self.resume_at = Some(after(now, self.backoff.next().min(max_pause)));
    }
}

/// The backend's call for these items.
fn operation(items: &[Item]) -> &'static str {
    match items.iter().all(|item| item.action == Action::Ack) {
        true => "ack",
        false => "change",
    }
}

/// One backend call. The items of a batcher are all acks or all changes.
fn call(queue: Queue, items: &[Item]) -> BoxFuture<Result<Vec<LeaseOutcome>>> {
    let acks = operation(items) == "ack";
    let receipts = items.iter().map(|item| item.receipt.clone());
    if acks {
        let receipts: Vec<_> = receipts.collect();
        return boxed_call("ack", async move { queue.ack_chunk(&receipts).await });
    }
    let changes = items.iter().filter_map(|item| {
        let (receipt, action) = (item.receipt.clone(), item.change()?.clone());
        Some(LeaseChange { receipt, action })
    });
    let changes: Vec<_> = changes.collect();
    boxed_call("change", async move { queue.change_chunk(&changes).await })
}

impl Item {
    /// The item after a call that failed.
    pub(crate) fn failed(mut self, error: &Error) -> Self {
        self.failure = Some(error.clone());
        self
    }

    /// Whether an item of its last call may have failed that call: this one or another.
    fn goes_alone(&self) -> bool {
        self.failure.as_ref().is_some_and(Error::may_be_one_item)
    }

    /// The change, or `None` for an ack.
    pub(crate) fn change(&self) -> Option<&LeaseAction> {
        match &self.action {
            Action::Ack => None,
            Action::Change(action) => Some(action),
            Action::ReleaseUnstarted => Some(&LeaseAction::Release),
        }
    }
}

/// A backend call. A panic of the backend becomes an error, because it must not end the task that
/// renews all other leases.
pub(crate) fn boxed_call<T: Send + 'static>(
    operation: &'static str,
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> BoxFuture<Result<T>> {
    Box::pin(backend_call(operation, move || call))
}
