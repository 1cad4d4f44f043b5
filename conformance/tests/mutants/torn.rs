//! Operations in two halves, with an await between them: the bugs that only another task or a
//! dropped future brings to light.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use queue_api::{
    Delivery, EnqueueOutcome, LeaseOptions, LeaseOutcome, NewMessage, QueueName, Result,
};

use crate::{
    backend::Backend,
    bug::Bug,
    message::{Message, Millis},
    settle::Use,
    state::{State, refused},
};

impl Backend {
    /// Carries out an operation on the state: under one lock, or with the bug `written_back` on
    /// a copy of the queue that replaces whatever the queue is by then.
    pub(crate) async fn operate<T: Send>(
        &self,
        queue: &QueueName,
        written_back: Bug,
        operation: impl FnOnce(&mut State) -> T + Send,
    ) -> T {
        if !self.has(written_back) {
            return operation(&mut self.lock());
        }
        let mut copy = self.lock().clone();
        self.window().await;
        let answer = operation(&mut copy);
        let messages = std::mem::take(copy.messages_mut(queue));
        *self.lock().messages_mut(queue) = messages;
        answer
    }

    /// The two halves of an enqueue, if that is the bug.
    pub(crate) async fn torn_enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
        now: Millis,
    ) -> Option<Result<Vec<EnqueueOutcome>>> {
        match self.shared.bug? {
            Bug::EnqueueLeavesQueueLocked => {
                if !self.lock().memory.locked.insert(queue.clone()) {
                    return Some(Err(refused("enqueue", "the queue is locked")));
                }
                self.window().await;
                self.lock().memory.locked.remove(queue);
                Some(self.lock().enqueue(queue, messages, now))
            }
            Bug::EnqueueNotesIdsFirst => {
                let key = |message: &NewMessage| (queue.clone(), message.id.clone());
                let noted = |message: &NewMessage| self.lock().memory.noted.insert(key(message));
                let fresh: Vec<bool> = messages.iter().map(noted).collect();
                self.window().await;
                let mut outcomes = Vec::new();
                for (message, fresh) in messages.iter().zip(fresh) {
                    if !fresh {
                        outcomes.push(EnqueueOutcome::Duplicate);
                        continue;
                    }
                    let mut state = self.lock();
                    let stored = state.enqueue(queue, std::slice::from_ref(message), now);
                    state.memory.noted.remove(&key(message));
                    outcomes.extend(stored.ok()?);
                }
                Some(Ok(outcomes))
            }
            _ => None,
        }
    }

    /// The two halves of a lease, if that is the bug.
    pub(crate) async fn torn_lease(
        &self,
        queue: &QueueName,
        options: &LeaseOptions,
        now: Millis,
    ) -> Option<Vec<Delivery>> {
        match self.shared.bug? {
            Bug::LeaseGivesUp => {
                // Held for as long as the call is under way, even if that ends in a drop.
                let under_way = self.shared.lease_under_way.clone();
                let call = self.shared.lease_calls.fetch_add(1, Ordering::SeqCst) + 1;
                let meets = Arc::strong_count(&under_way) > 2;
                self.window().await;
                let was_met = self.shared.lease_calls.load(Ordering::SeqCst) != call;
                drop(under_way);
                (meets || was_met).then(Vec::new)
            }
            Bug::LeaseUnconditional => {
                let met = self.lock().met(queue, options, now, &self.caller);
                self.window().await;
                Some(self.lock().lease(queue, &met, options, now, &self.caller))
            }
            Bug::LeaseGuardsAttemptsOnly => {
                let attempts = |state: &mut State, arrival: u64| {
                    let message = state.message(queue, arrival);
                    message.map(|message| message.attempts)
                };
                let seen: Vec<_> = {
                    let mut state = self.lock();
                    let met = state.met(queue, options, now, &self.caller).into_iter();
                    met.map(|met| (met, attempts(&mut state, met))).collect()
                };
                self.window().await;
                let mut state = self.lock();
                let same = seen
                    .into_iter()
                    .filter(|(met, seen)| attempts(&mut state, *met) == *seen);
                let met: Vec<_> = same.map(|(met, _)| met).collect();
                Some(state.lease(queue, &met, options, now, &self.caller))
            }
            Bug::LeaseGuardsIdsOnly => {
                let seen: BTreeMap<_, _> = {
                    let mut state = self.lock();
                    let met = state.met(queue, options, now, &self.caller).into_iter();
                    let sent = met.filter_map(|met| Some(state.message(queue, met)?.sent.clone()));
                    sent.map(|sent| (sent.id, sent.payload)).collect()
                };
                self.window().await;
                let mut state = self.lock();
                let mut met = state.met(queue, options, now, &self.caller);
                met.retain(|&met| {
                    let message = state.message(queue, met);
                    message.is_some_and(|message| seen.contains_key(&message.sent.id))
                });
                let mut given = state.lease(queue, &met, options, now, &self.caller);
                for delivery in &mut given {
                    delivery.payload = seen[&delivery.id].clone();
                }
                Some(given)
            }
            Bug::LeaseTakesOut | Bug::LeaseInTwoWrites => {
                let mut met = self.lock().met(queue, options, now, &self.caller);
                met.truncate(options.max_messages());
                let out = self.take_out(queue, |message| met.contains(&message.arrival));
                self.window().await;
                self.lock().messages_mut(queue).extend(out);
                Some(self.lock().lease(queue, &met, options, now, &self.caller))
            }
            Bug::BurialTakesOut => {
                let met = self.lock().met(queue, options, now, &self.caller);
                let exhausted = |m: &Message| m.attempts >= m.sent.max_attempts;
                let out = self.take_out(queue, |m| met.contains(&m.arrival) && exhausted(m));
                self.window().await;
                self.lock().messages_mut(queue).extend(out);
                None
            }
            _ => None,
        }
    }

    /// The two halves of a redrive, if that is the bug.
    pub(crate) async fn torn_redrive(&self, queue: &QueueName) {
        if self.has(Bug::RedriveTakesOut) {
            let out = self.take_out(queue, |message| message.death.is_some());
            self.window().await;
            self.lock().messages_mut(queue).extend(out);
        }
    }

    /// The two halves of an ack or a change, if that is the bug.
    pub(crate) async fn torn_settle(
        &self,
        queue: &QueueName,
        uses: &[Use],
        now: Millis,
    ) -> Option<Result<Vec<LeaseOutcome>>> {
        let bug = self.shared.bug?;
        let held: Vec<Option<u64>> = {
            let state = self.lock();
            let held_by = |wanted| state.held_by(queue, wanted, now);
            let arrival = |wanted| held_by(wanted).map(|(_, arrival)| arrival);
            uses.iter().map(arrival).collect()
        };
        match uses.first()?.is_ack() {
            true => self.torn_ack(bug, queue, uses, held, now).await,
            false => self.torn_change(bug, queue, uses, held, now).await,
        }
    }

    async fn torn_ack(
        &self,
        bug: Bug,
        queue: &QueueName,
        uses: &[Use],
        held: Vec<Option<u64>>,
        now: Millis,
    ) -> Option<Result<Vec<LeaseOutcome>>> {
        match bug {
            Bug::AckTakesQueueOut => {
                let out = std::mem::take(self.lock().messages_mut(queue));
                self.window().await;
                let mut state = self.lock();
                state.messages_mut(queue).splice(0..0, out);
                Some(state.settle(queue, uses, now))
            }
            Bug::AckHidesFirst => {
                for arrival in held.into_iter().flatten() {
                    if let Some(message) = self.lock().message(queue, arrival) {
                        message.ready_at = Millis::MAX;
                    }
                }
                self.window().await;
                Some(self.lock().settle(queue, uses, now))
            }
            Bug::AckForgetsLeaseFirst => {
                for arrival in held.iter().copied().flatten() {
                    if let Some(message) = self.lock().message(queue, arrival) {
                        message.lease = None;
                    }
                }
                self.window().await;
                let remove = |arrival| self.lock().remove(queue, arrival);
                let outcome = |held: Option<u64>| match held.and_then(remove) {
                    Some(_) => LeaseOutcome::Applied,
                    None => LeaseOutcome::Lost,
                };
                Some(Ok(held.into_iter().map(outcome).collect()))
            }
            Bug::AckChecksForAnyLease => {
                self.window().await;
                Some(self.settle_for_any_lease(queue, uses, held, now))
            }
            _ => None,
        }
    }

    async fn torn_change(
        &self,
        bug: Bug,
        queue: &QueueName,
        uses: &[Use],
        held: Vec<Option<u64>>,
        now: Millis,
    ) -> Option<Result<Vec<LeaseOutcome>>> {
        match bug {
            Bug::DeadLetterTakesOut if !uses.iter().any(Use::is_burial) => None,
            Bug::DeadLetterTakesOut | Bug::ChangeTakesOut => {
                let out = self.take_out(queue, |message| held.contains(&Some(message.arrival)));
                self.window().await;
                let mut state = self.lock();
                state.messages_mut(queue).extend(out);
                Some(state.settle(queue, uses, now))
            }
            Bug::ChangeChecksForAnyLease => {
                self.window().await;
                Some(self.settle_for_any_lease(queue, uses, held, now))
            }
            _ => None,
        }
    }

    /// Settles the leases that there are by now on the messages that were held earlier.
    fn settle_for_any_lease(
        &self,
        queue: &QueueName,
        uses: &[Use],
        held: Vec<Option<u64>>,
        now: Millis,
    ) -> Result<Vec<LeaseOutcome>> {
        let mut state = self.lock();
        let mut uses = uses.to_vec();
        for (wanted, held) in uses.iter_mut().zip(held) {
            let message = held.and_then(|arrival| state.message(queue, arrival));
            if let Some(lease) = message.and_then(|message| message.lease.as_ref()) {
                wanted.receipt = lease.receipt.clone();
            }
        }
        state.settle(queue, &uses, now)
    }

    fn take_out(&self, queue: &QueueName, which: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut state = self.lock();
        let taken = state
            .messages_mut(queue)
            .extract_if(.., |message| which(message));
        taken.collect()
    }
}
