//! One task of a program: makes random calls and records them.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{LeaseChange, LeaseOptions, NewMessage, QueueBackend, QueueName, Receipt};

use super::event::{Action, Call, Given, Held, Millis, What, applied, millis, moment, wall_clock};
use crate::{
    drop_after::DropAfter,
    fixture::{Fixture, id_of},
};

/// What the tasks of a program share: the record, and the receipts that were given out, so that
/// one may use another's.
#[derive(Clone, Default)]
pub(super) struct Board {
    calls: Arc<Mutex<Vec<Call>>>,
    receipts: Arc<Mutex<Vec<Held>>>,
}

impl Board {
    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().expect("recording does not panic"))
    }
}

/// Randomness that needs no replay: what a task did is in the record.
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new() -> Self {
        Self(fastrand::Rng::new())
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    /// Lets others go first, now and then.
    pub(super) async fn dawdle(&mut self) {
        for _ in 0..self.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// What time a call may have been made at, by the backend's clock.
pub(super) enum Time {
    /// The manual clock only moves forward, so it bounds the call from both sides.
    Manual(Fixture),
    /// The backend's own clock, which may be off this machine's by so much.
    Real { slack: Millis },
}

impl Time {
    fn now(&self) -> Millis {
        match self {
            Self::Manual(fixture) => millis(fixture.now()),
            Self::Real { .. } => wall_clock(),
        }
    }

    fn slack(&self) -> Millis {
        match self {
            Self::Manual(_) => 0,
            Self::Real { slack } => *slack,
        }
    }
}

/// One task: makes calls and records them.
pub(super) struct Recorder {
    pub(super) by: String,
    /// How many calls there are for each that is dropped on its way, on average.
    pub(super) drop_one_in: u64,
    pub(super) backend: Arc<dyn QueueBackend>,
    pub(super) queue: QueueName,
    pub(super) time: Time,
    pub(super) board: Board,
    pub(super) random: Random,
    /// How many calls it has made.
    pub(super) made: u64,
}

impl Recorder {
    pub(super) async fn work(mut self, calls: usize) {
        for _ in 0..calls {
            self.random.dawdle().await;
            if self.random.below(2) == 0 {
                let visibility = 1 + self.random_millis();
                self.lease(3, visibility).await;
            } else {
                self.settle_some().await;
            }
        }
    }

    fn random_millis(&mut self) -> Millis {
        [0, 5, 10, 20][self.random.below(4) as usize]
    }

    pub(super) async fn send(mut self, messages: usize) {
        for n in 0..messages {
            self.random.dawdle().await;
            let delay = self.random_millis();
            self.enqueue(&format!("m{n}"), delay).await;
        }
    }

    /// Settles receipts that somebody was given, perhaps long ago, in one call.
    async fn settle_some(&mut self) {
        let picked = self.pick_receipts();
        if picked.is_empty() {
            return;
        }
        let delay = self.random_millis();
        let action = match self.random.below(14) {
            0..=4 => Action::Ack,
            5..=8 => Action::Nack(delay),
            9 | 10 => Action::Extend(delay + 1),
            11 => Action::DeadLetter,
            _ => Action::Release,
        };
        self.settle(&picked, action).await;
    }

    /// One to three of the receipts that were given out last.
    fn pick_receipts(&mut self) -> Vec<Held> {
        let board = self.board.clone();
        let receipts = board.receipts.lock().expect("recording does not panic");
        let recent = &receipts[receipts.len().saturating_sub(6)..];
        let mut picked = recent.to_vec();
        self.random.0.shuffle(&mut picked);
        picked.truncate(1 + self.random.below(3) as usize);
        picked
    }

    /// Enqueues once, whatever comes of it: a repeat might find that the message was delivered
    /// and acked meanwhile, and store a second one of the same id, which the judge could not
    /// tell from the first.
    pub(super) async fn enqueue(&mut self, id: &str, delay: Millis) {
        let message = NewMessage::new(id.to_owned())
            .with_id(id_of(id))
            .with_delay(Duration::from_millis(delay))
            .with_max_attempts(1000);
        let (backend, queue) = (self.backend.clone(), self.queue.clone());
        let what = |answered| What::Enqueue {
            id: id.to_owned(),
            delay,
            answered,
        };
        self.made += 1;
        let call = self.begin(0, what(false));
        let messages = std::slice::from_ref(&message);
        let answer = self.maybe_drop(backend.enqueue(&queue, messages)).await;
        let answered = matches!(answer, Some(Ok(_)));
        self.end(call, what(answered), answered);
    }

    pub(super) async fn lease(&mut self, max: usize, visibility: Millis) -> Vec<Given> {
        let options =
            LeaseOptions::new(max).with_visibility_timeout(Duration::from_millis(visibility));
        let (backend, queue) = (self.backend.clone(), self.queue.clone());
        self.made += 1;
        let unknown = What::Lease {
            visibility,
            answer: None,
        };
        let call = self.begin(0, unknown);
        let answer = self.maybe_drop(backend.lease(&queue, &options)).await;
        let answer = answer.and_then(Result::ok);
        let answer: Option<Vec<_>> =
            answer.map(|deliveries| deliveries.iter().map(Given::new).collect());
        let given = answer.clone().unwrap_or_default();
        let answered = answer.is_some();
        self.end(call, What::Lease { visibility, answer }, answered);
        let mut receipts = self
            .board
            .receipts
            .lock()
            .expect("recording does not panic");
        receipts.extend(given.iter().map(Given::held));
        drop(receipts);
        given
    }

    /// One call for all of them, which the record has as one for each.
    pub(super) async fn settle(&mut self, held: &[Held], action: Action) -> Option<Vec<bool>> {
        let what = |(receipt, id): &Held, answer| What::Settle {
            receipt: receipt.clone(),
            id: id.clone(),
            action,
            answer,
        };
        let (backend, queue) = (self.backend.clone(), self.queue.clone());
        let receipts: Vec<_> = held
            .iter()
            .map(|(receipt, _)| Receipt::new(receipt.as_str()))
            .collect();
        self.made += 1;
        let calls: Vec<_> = held
            .iter()
            .enumerate()
            .map(|(part, held)| self.begin(part, what(held, None)))
            .collect();
        let outcomes = match action.change() {
            None => self.maybe_drop(backend.ack(&queue, &receipts)).await,
            Some(action) => {
                let change = |receipt| LeaseChange {
                    receipt,
                    action: action.clone(),
                };
                let changes: Vec<_> = receipts.into_iter().map(change).collect();
                self.maybe_drop(backend.change(&queue, &changes)).await
            }
        };
        let answers: Option<Vec<bool>> = outcomes
            .and_then(Result::ok)
            .map(|outcomes| outcomes.into_iter().map(applied).collect());
        for (n, call) in calls.into_iter().enumerate() {
            let answer = answers.as_ref().map(|answers| answers[n]);
            self.end(call, what(&held[n], answer), answer.is_some());
        }
        answers
    }

    /// Runs a call to its end or, now and then, drops it on the way.
    async fn maybe_drop<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        if self.random.below(self.drop_one_in) > 0 {
            return Some(call.await);
        }
        let polls = self.random.below(6) as usize + 1;
        DropAfter::new(pin!(call), polls).await
    }

    fn begin(&self, part: usize, what: What) -> Call {
        let clock = self.time.now();
        let call = Call {
            by: self.by.clone(),
            number: self.made,
            part,
            began: moment(),
            ended: None,
            clock_from: clock.saturating_sub(self.time.slack()),
            clock_to: Millis::MAX,
            what,
        };
        self.announce(&call);
        call
    }

    /// Records the end of a call. One that was not answered has none: it may take effect later,
    /// though nobody waits for it any more.
    fn end(&mut self, mut call: Call, what: What, answered: bool) {
        call.what = what;
        if answered {
            call.ended = Some(moment());
            call.clock_to = self.time.now() + self.time.slack();
        }
        self.announce(&call);
        self.board
            .calls
            .lock()
            .expect("recording does not panic")
            .push(call);
    }

    /// Tells the parent of a process what it must know even if this process is killed now.
    fn announce(&self, call: &Call) {
        if let Time::Real { .. } = self.time {
            super::process::announce(call);
        }
    }

    /// Lets all leases run out and acks whatever is left, so that everything has to turn up.
    pub(super) async fn clean_up(&mut self) {
        for _ in 0..3 {
            if let Time::Manual(fixture) = &self.time {
                fixture.pass(10_000).await;
            }
            while self.ack_a_batch().await > 0 {}
        }
    }

    pub(super) async fn ack_a_batch(&mut self) -> usize {
        let most = self.backend.limits().max_batch.min(100);
        let given = self.lease(most, 5_000).await;
        for given in &given {
            while self.settle(&[given.held()], Action::Ack).await.is_none() {
                // A backend that fails at once must not keep the watchdog from running.
                tokio::task::yield_now().await;
            }
        }
        given.len()
    }
}
