//! A task that makes random calls and records them.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{LeaseChange, LeaseOptions, LeaseOutcome, NewMessage, QueueName, Receipt};

use super::event::{
    Call, Millis, Operation, ReceiptAction, RecordedDelivery, millis, moment, wall_clock,
};
use crate::{
    fixture::{Fixture, id_of},
    harness::Connection,
    poll_at_most::poll_at_most,
};

/// The record of all tasks, and the deliveries so far: a task may use the receipt of another.
#[derive(Clone, Default)]
pub(super) struct SharedRecord {
    calls: Arc<Mutex<Vec<Call>>>,
    deliveries: Arc<Mutex<Vec<RecordedDelivery>>>,
}

impl SharedRecord {
    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().expect("recording does not panic"))
    }
}

/// Randomness without a seed: the record shows what a task did.
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new() -> Self {
        Self(fastrand::Rng::new())
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    pub(super) async fn yield_randomly(&mut self) {
        for _ in 0..self.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// The backend's clock, as far as a recorder knows it.
pub(super) enum CallClock {
    /// The manual clock only moves forward, so it bounds a call from both sides.
    Manual(Fixture),
    /// The backend's own clock. It may differ from this machine's by `slack`.
    Real { slack: Millis },
}

impl CallClock {
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

/// One task.
pub(super) struct Recorder {
    pub(super) by: String,
    /// One in this many calls is dropped on its way.
    pub(super) drop_one_in: u64,
    pub(super) connection: Connection,
    pub(super) queue: QueueName,
    pub(super) clock: CallClock,
    pub(super) record: SharedRecord,
    pub(super) random: Random,
    /// The number of calls so far.
    pub(super) made: u64,
    /// Called before each call and after it.
    pub(super) announce: fn(&Call),
}

impl Recorder {
    pub(super) async fn work(mut self, calls: usize) {
        for _ in 0..calls {
            self.random.yield_randomly().await;
            if self.random.below(2) == 0 {
                let visibility = self.random_millis();
                self.lease(3, visibility).await;
            } else {
                self.settle_some().await;
            }
        }
    }

    fn random_millis(&mut self) -> Millis {
        [0, 1, 5, 10, 20][self.random.below(5) as usize]
    }

    pub(super) async fn send(mut self, messages: usize) {
        for n in 0..messages {
            self.random.yield_randomly().await;
            let delay = self.random_millis();
            self.enqueue(&format!("m{n}"), delay).await;
        }
    }

    async fn settle_some(&mut self) {
        let picked = self.pick_deliveries();
        if picked.is_empty() {
            return;
        }
        let delay = self.random_millis();
        let action = match self.random.below(14) {
            0..=4 => ReceiptAction::Ack,
            5..=8 => ReceiptAction::Nack(delay),
            9 | 10 => ReceiptAction::Extend(delay),
            11 => ReceiptAction::DeadLetter,
            _ => ReceiptAction::Release,
        };
        self.settle(&picked, action).await;
    }

    /// One to three of the last deliveries.
    fn pick_deliveries(&mut self) -> Vec<RecordedDelivery> {
        let deliveries = self.record.deliveries.lock();
        let deliveries = deliveries.expect("recording does not panic");
        let mut picked = deliveries[deliveries.len().saturating_sub(6)..].to_vec();
        drop(deliveries);
        self.random.0.shuffle(&mut picked);
        picked.truncate(1 + self.random.below(3) as usize);
        picked
    }

    /// Enqueues once, also after an error. A repeat could store a second message with the same id,
    /// if the first was acked meanwhile. The judge could not tell the two apart.
    pub(super) async fn enqueue(&mut self, id: &str, delay: Millis) {
        let message = NewMessage::new(id.to_owned())
            .with_id(id_of(id))
            .with_delay(Duration::from_millis(delay))
            .with_max_attempts(1000);
        let operation = |answered| Operation::Enqueue {
            id: id.to_owned(),
            delay,
            answered,
        };
        let (backend, queue) = (self.connection.backend.clone(), self.queue.clone());
        self.made += 1;
        let call = self.begin(0, operation(false));
        let messages = std::slice::from_ref(&message);
        let answer = self.maybe_drop(backend.enqueue(&queue, messages)).await;
        let answered = matches!(answer, Some(Ok(_)));
        self.end(call, operation(answered), answered);
    }

    pub(super) async fn lease(&mut self, max: usize, visibility: Millis) -> Vec<RecordedDelivery> {
        let options =
            LeaseOptions::new(max).with_visibility_timeout(Duration::from_millis(visibility));
        let operation = |answer| Operation::Lease { visibility, answer };
        let (backend, queue) = (self.connection.backend.clone(), self.queue.clone());
        self.made += 1;
        let call = self.begin(0, operation(None));
        let answer = self.maybe_drop(backend.lease(&queue, &options)).await;
        let answer: Option<Vec<_>> = answer
            .and_then(Result::ok)
            .map(|deliveries| deliveries.iter().map(RecordedDelivery::new).collect());
        let leased = answer.clone().unwrap_or_default();
        let answered = answer.is_some();
        self.end(call, operation(answer), answered);
        let deliveries = self.record.deliveries.lock();
        deliveries
            .expect("recording does not panic")
            .extend(leased.iter().cloned());
        leased
    }

    /// Settles in one batch, which is recorded as one call for each part.
    pub(super) async fn settle(
        &mut self,
        deliveries: &[RecordedDelivery],
        action: ReceiptAction,
    ) -> Option<Vec<bool>> {
        let operation = |delivery: &RecordedDelivery, answer| Operation::Settle {
            receipt: delivery.receipt.clone(),
            id: delivery.id.clone(),
            action,
            answer,
        };
        let (backend, queue) = (self.connection.backend.clone(), self.queue.clone());
        let receipts: Vec<_> = deliveries
            .iter()
            .map(|delivery| Receipt::new(delivery.receipt.as_str()))
            .collect();
        self.made += 1;
        let calls: Vec<_> = deliveries
            .iter()
            .enumerate()
            .map(|(part, delivery)| self.begin(part, operation(delivery, None)))
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
        let applied = |outcome| outcome == LeaseOutcome::Applied;
        let answers: Option<Vec<bool>> = outcomes
            .and_then(Result::ok)
            .map(|outcomes| outcomes.into_iter().map(applied).collect());
        for (part, call) in calls.into_iter().enumerate() {
            let answer = answers.as_ref().map(|answers| answers[part]);
            self.end(call, operation(&deliveries[part], answer), answer.is_some());
        }
        answers
    }

    async fn maybe_drop<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        if self.random.below(self.drop_one_in) > 0 {
            return Some(call.await);
        }
        let polls = self.random.below(6) as usize + 1;
        poll_at_most(polls, pin!(call)).await
    }

    fn begin(&self, part: usize, operation: Operation) -> Call {
        let call = Call {
            by: self.by.clone(),
            number: self.made,
            part,
            clock_from: self.clock.now().saturating_sub(self.clock.slack()),
            began: moment(),
            ended: None,
            clock_to: Millis::MAX,
            operation,
        };
        (self.announce)(&call);
        call
    }

    /// A call without an answer has no end: it may still take effect later.
    fn end(&mut self, mut call: Call, operation: Operation, answered: bool) {
        call.operation = operation;
        if answered {
            call.ended = Some(moment());
            call.clock_to = self.clock.now() + self.clock.slack();
        }
        (self.announce)(&call);
        let calls = self.record.calls.lock();
        calls.expect("recording does not panic").push(call);
    }

    /// Lets all leases expire and acks everything, so that the record is complete.
    pub(super) async fn drain(&mut self) {
        for _ in 0..3 {
            if let CallClock::Manual(fixture) = &self.clock {
                fixture.pass(10_000).await;
            }
            while self.ack_a_batch().await > 0 {}
        }
    }

    pub(super) async fn ack_a_batch(&mut self) -> usize {
        let most = self.connection.backend.limits().max_batch.get().min(100);
        let leased = self.lease(most, 5_000).await;
        for delivery in &leased {
            let one = std::slice::from_ref(delivery);
            while self.settle(one, ReceiptAction::Ack).await.is_none() {
                // If the backend fails at once, the timeout of the check still has to run.
                tokio::task::yield_now().await;
            }
        }
        leased.len()
    }
}
