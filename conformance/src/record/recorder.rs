//! A task that makes calls and records them.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use queue_api::{
    Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, NewMessage, QueueName,
    Receipt,
};

use super::event::{
    Call, Millis, Operation, ReceiptAction, RecordedDelivery, message_name, millis, moment,
    wall_clock,
};
use crate::{fixture::Fixture, harness::Connection, poll_at_most::poll_at_most, tally::Tally};

/// The most rounds of a drain. If messages are still left, the judge says which.
const MOST_DRAINS: usize = 500;

/// What all tasks of a history share.
#[derive(Clone, Default)]
pub(super) struct SharedRecord(Arc<Mutex<Shared>>);

#[derive(Default)]
pub(super) struct Shared {
    pub(super) calls: Vec<Call>,
    /// The deliveries so far: a task may use the receipt of another.
    pub(super) deliveries: Vec<RecordedDelivery>,
    /// The messages by their names in the record.
    pub(super) sent: HashMap<String, NewMessage>,
    pub(super) tally: Tally,
}

impl SharedRecord {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().expect("recording does not panic")
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }
}

/// Randomness without a seed: the record shows what a task did.
pub(super) struct Random(pub(super) fastrand::Rng);

impl Random {
    pub(super) fn new() -> Self {
        Self(fastrand::Rng::new())
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) async fn yield_randomly(&mut self) {
        for _ in 0..self.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// The backend's clock, as far as a recorder knows it.
#[derive(Clone)]
pub(super) enum CallClock {
    /// The manual clock only moves forward, so it bounds a call from both sides.
    Manual(Fixture),
    /// The backend's own clock. It may differ from this machine's by `slack`.
    Real { slack: Millis },
}

impl CallClock {
    pub(super) fn now(&self) -> Millis {
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
    /// Whether the server fails on purpose.
    pub(super) has_faults: bool,
    pub(super) connection: Connection,
    pub(super) clock: CallClock,
    pub(super) record: SharedRecord,
    pub(super) random: Random,
    /// The number of calls so far.
    pub(super) made: u64,
    /// Called before each call and after it.
    pub(super) announce: fn(&Call),
}

impl Recorder {
    /// Enqueues a batch, which is recorded as one call for each part. Each message is another one,
    /// also if its id was used before, so it has a name of its own.
    pub(super) async fn enqueue(&mut self, queue: &QueueName, messages: &[NewMessage]) {
        let mut named = Vec::new();
        for message in messages {
            let mut shared = self.record.lock();
            let name = message_name(
                queue.as_str(),
                message.id.as_str(),
                shared.sent.len() as u64,
            );
            // The delivery must show which message it is.
            let message = message
                .clone()
                .with_payload(name.clone())
                .with_header("name", &*name);
            shared.sent.insert(name.clone(), message.clone());
            named.push((name, message));
        }
        let operation = |part: usize, answer| {
            let (name, message) = &named[part];
            Operation::Store {
                id: name.clone(),
                delay: message.delay_or_default().as_millis() as Millis,
                max_attempts: message.max_attempts_or_default(),
                answer,
            }
        };
        let calls = self.begin(named.len(), |part| operation(part, None));
        let backend = self.connection.backend.clone();
        let messages: Vec<_> = named.iter().map(|(_, message)| message.clone()).collect();
        let answer = self.answer(backend.enqueue(queue, &messages)).await;
        for (part, call) in calls.into_iter().enumerate() {
            let outcome = answer.as_ref().map(|outcomes| outcomes[part]);
            if let Some(outcome) = outcome {
                let place = format!("{queue}/{}", messages[part].id);
                self.record.lock().tally.enqueued(place, outcome);
            }
            let stored = outcome.map(|outcome| outcome == EnqueueOutcome::Stored);
            self.end(call, operation(part, stored), stored.is_some());
        }
    }

    /// Leases for `visibility`, or for the messages' own timeouts.
    pub(super) async fn lease(
        &mut self,
        queue: &QueueName,
        max: usize,
        visibility: Option<Millis>,
    ) -> Vec<RecordedDelivery> {
        let mut options = LeaseOptions::new(max);
        if let Some(millis) = visibility {
            options = options.with_visibility_timeout(Duration::from_millis(millis));
        }
        let unanswered = || Operation::Lease {
            visibility: visibility.unwrap_or(0),
            answer: None,
        };
        let mut calls = self.begin(1, |_| unanswered());
        let call = calls.remove(0);
        let backend = self.connection.backend.clone();
        let Some(deliveries) = self.answer(backend.lease(queue, &options)).await else {
            self.end(call, unanswered(), false);
            return vec![];
        };
        assert!(
            deliveries.len() <= max,
            "L4: asked for {max}, got {}",
            deliveries.len()
        );
        self.record.lock().tally.leased(queue.as_str(), &deliveries);
        let recorded: Vec<_> = deliveries
            .iter()
            .map(|d| self.recorded(d, visibility, &call))
            .collect();
        let answered = |visibility, deliveries: &[RecordedDelivery]| Operation::Lease {
            visibility,
            answer: Some(deliveries.to_vec()),
        };
        if visibility.is_some() || recorded.is_empty() {
            // In one line, because a process may be killed between two.
            self.end(call, answered(visibility.unwrap_or(0), &recorded), true);
        } else {
            // Messages with timeouts of their own are recorded as parts.
            for (part, (delivery, recorded)) in deliveries.iter().zip(&recorded).enumerate() {
                let visibility = delivery.visibility_timeout.as_millis() as Millis;
                let call = Call {
                    part,
                    ..call.clone()
                };
                self.end(
                    call,
                    answered(visibility, std::slice::from_ref(recorded)),
                    true,
                );
            }
        }
        self.record
            .lock()
            .deliveries
            .extend(recorded.iter().cloned());
        recorded
    }

    /// Names a delivery, and checks what no other call can have changed.
    fn recorded(
        &self,
        delivery: &Delivery,
        visibility: Option<Millis>,
        call: &Call,
    ) -> RecordedDelivery {
        let name = String::from_utf8_lossy(&delivery.payload).into_owned();
        let sent = self.record.lock().sent.get(&name).cloned();
        if let Some(sent) = sent {
            let own = sent.visibility_timeout_or_default();
            let mut expected = delivery.clone();
            expected.id = sent.id.clone();
            expected.payload = sent.payload.clone();
            expected.headers = sent.headers.clone();
            expected.max_attempts = sent.max_attempts_or_default();
            expected.visibility_timeout = visibility.map_or(own, Duration::from_millis);
            assert_eq!(*delivery, expected, "E3: a delivery shows what was sent");
        }
        if let CallClock::Manual(fixture) = &self.clock {
            let timeout = delivery.visibility_timeout.as_millis() as Millis;
            let expires = millis(delivery.lease_expires_at);
            let allowed = call.clock_from + timeout..=millis(fixture.now()) + timeout;
            assert!(
                allowed.contains(&expires),
                "L2: {name} expires at {expires}, not {allowed:?}"
            );
        }
        RecordedDelivery {
            id: name,
            ..RecordedDelivery::new(delivery)
        }
    }

    /// Settles in one batch, which is recorded as one call for each part. The batch is one of acks,
    /// or it has none.
    pub(super) async fn settle(
        &mut self,
        queue: &QueueName,
        uses: &[(RecordedDelivery, ReceiptAction)],
    ) -> Option<Vec<bool>> {
        let operation = |part: usize, answer| {
            let (delivery, action) = &uses[part];
            // In another queue, it is a receipt of a message that was never there.
            let own = format!("{queue}/");
            let id = match delivery.id.starts_with(&own) {
                true => delivery.id.clone(),
                false => format!("{own}{}", delivery.id),
            };
            Operation::Settle {
                receipt: delivery.receipt.clone(),
                id,
                action: *action,
                answer,
            }
        };
        let changes: Vec<_> = uses
            .iter()
            .filter_map(|(delivery, action)| {
                let receipt = Receipt::new(delivery.receipt.as_str());
                Some(LeaseChange {
                    receipt,
                    action: action.change()?,
                })
            })
            .collect();
        let receipts: Vec<_> = uses
            .iter()
            .map(|(d, _)| Receipt::new(d.receipt.as_str()))
            .collect();
        let calls = self.begin(uses.len(), |part| operation(part, None));
        let backend = self.connection.backend.clone();
        let outcomes = match changes.is_empty() {
            true => self.answer(backend.ack(queue, &receipts)).await,
            false => self.answer(backend.change(queue, &changes)).await,
        };
        for (part, call) in calls.into_iter().enumerate() {
            let outcome = outcomes.as_ref().map(|outcomes| outcomes[part]);
            let used = (queue.as_str(), receipts[part].as_str());
            let action = changes.get(part).map(|change| &change.action);
            self.record
                .lock()
                .tally
                .used(used, action, outcome, self.clock.now());
            let applied = outcome.map(LeaseOutcome::is_applied);
            self.end(call, operation(part, applied), applied.is_some());
        }
        let outcomes = outcomes?.into_iter();
        Some(outcomes.map(LeaseOutcome::is_applied).collect())
    }

    /// The answer of a call, unless it is dropped or fails.
    pub(super) async fn answer<T>(
        &mut self,
        call: impl Future<Output = queue_api::Result<T>>,
    ) -> Option<T> {
        let answer = if self.random.one_in(self.drop_one_in) {
            let polls = self.random.below(6) as usize + 1;
            poll_at_most(polls, pin!(call)).await
        } else {
            Some(call.await)
        };
        let what = match &answer {
            Some(Ok(_)) => None,
            Some(Err(error)) => {
                assert!(
                    error.is_retryable(),
                    "X1: an error that cannot be repeated: {error:?}"
                );
                Some(match self.has_faults {
                    true => "calls that failed",
                    false => "calls that failed without a fault",
                })
            }
            None => Some("calls that were dropped"),
        };
        let tally = &mut self.record.lock().tally;
        tally.called();
        if let Some(what) = what {
            tally.add(what, 1);
        }
        answer?.ok()
    }

    /// Begins a call of several parts.
    pub(super) fn begin(&mut self, parts: usize, of: impl Fn(usize) -> Operation) -> Vec<Call> {
        self.made += 1;
        let clock_from = self.clock.now().saturating_sub(self.clock.slack());
        let began = moment();
        let begin = |part| {
            let call = Call {
                by: self.by.clone(),
                number: self.made,
                part,
                clock_from,
                began,
                ended: None,
                clock_to: Millis::MAX,
                operation: of(part),
            };
            (self.announce)(&call);
            call
        };
        (0..parts).map(begin).collect()
    }

    /// A call without an answer has no end: it may still take effect later.
    pub(super) fn end(&self, mut call: Call, operation: Operation, answered: bool) {
        call.operation = operation;
        if answered {
            call.ended = Some(moment());
            call.clock_to = self.clock.now() + self.clock.slack();
        }
        (self.announce)(&call);
        self.record.lock().calls.push(call);
    }

    /// Lets all leases and delays end and acks everything, so that the record is complete. A call
    /// that was dropped may take effect meanwhile, so it goes on until two rounds in a row find nothing.
    pub(super) async fn drain(&mut self, queues: &[QueueName]) {
        let mut times_empty = 0;
        for _ in 0..MOST_DRAINS {
            if times_empty == 2 {
                return;
            }
            if let CallClock::Manual(fixture) = &self.clock {
                fixture.pass(30).await;
            }
            times_empty += 1;
            for queue in queues {
                while self.ack_a_batch(queue).await > 0 {}
                let stats = self.connection.backend.stats(queue).await;
                let is_empty = stats.is_ok_and(|it| it.ready + it.delayed + it.leased == 0);
                if !is_empty {
                    times_empty = 0;
                }
            }
        }
    }

    pub(super) async fn ack_a_batch(&mut self, queue: &QueueName) -> usize {
        let most = self.connection.backend.limits().max_batch.get().min(100);
        let leased = self.lease(queue, most, Some(5_000)).await;
        let uses: Vec<_> = leased
            .iter()
            .map(|d| (d.clone(), ReceiptAction::Ack))
            .collect();
        while !uses.is_empty() && self.settle(queue, &uses).await.is_none() {
            // If the backend fails at once, the timeout of the check still has to run.
            tokio::task::yield_now().await;
        }
        leased.len()
    }
}
