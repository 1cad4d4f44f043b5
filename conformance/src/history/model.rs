//! The model: what a queue must hold after the calls so far.
//!
//! The contract leaves the order of messages that became ready in the same millisecond open. There
//! the model accepts every choice and continues with the one that it saw.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, SystemTime},
};

use queue_api::{
    DeadLetter, DeadReason, Delivery, EnqueueOutcome, LeaseAction, LeaseOutcome, MessageId,
    NewMessage, PeekedMessage, Purge, QueueStats, Receipt,
};

mod message;

use message::{Message, State};

/// Why the model rejects an answer.
pub(crate) type Rejection = String;

macro_rules! accept {
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err(format!($($why)*));
        }
    };
}

/// One queue, by the contract.
#[derive(Debug, Default)]
pub(crate) struct Model {
    messages: BTreeMap<MessageId, Message>,
    seen: HashSet<Receipt>,
}

impl Model {
    pub(crate) fn enqueue(&mut self, message: &NewMessage, now: SystemTime) -> EnqueueOutcome {
        if self.messages.contains_key(&message.id) {
            return EnqueueOutcome::Duplicate;
        }
        let stored = Message {
            sent: message.clone(),
            enqueued_at: now,
            attempts: 0,
            state: State::Live {
                ready_at: now + message.delay_or_default(),
                receipt: None,
            },
        };
        self.messages.insert(message.id.clone(), stored);
        EnqueueOutcome::Stored
    }

    /// Judges the answer of a lease call. Returns exhausted messages that became ready together
    /// with the last one delivered: the call may have made dead letters of them or not.
    pub(crate) fn lease(
        &mut self,
        max: usize,
        visibility: Option<Duration>,
        now: SystemTime,
        deliveries: &[Delivery],
    ) -> Result<Vec<MessageId>, Rejection> {
        let ready: Vec<MessageId> = self.ready(now);
        let can_be_leased = ready
            .iter()
            .filter(|id| !self.messages[*id].exhausted())
            .count();
        let leased = deliveries.len();
        accept!(leased <= max, "L4: asked for {max}, got {leased}");
        let mut horizon = None;
        let mut met = HashSet::new();
        for delivery in deliveries {
            accept!(
                met.insert(&delivery.id),
                "L4: {} was delivered twice in one call",
                delivery.id
            );
            let ready_at = self.judge_delivery(delivery, visibility, now)?;
            accept!(
                horizon <= Some(ready_at),
                "L4: {} was delivered out of order",
                delivery.id
            );
            horizon = Some(ready_at);
        }
        // Only now: if one too many is a dead letter, D1 is the better reason.
        accept!(
            leased == max.min(can_be_leased),
            "L4: asked for {max}, got {leased}, {can_be_leased} ready"
        );
        // A call that got less than it asked for has met every ready message.
        let horizon = if leased == max {
            horizon
        } else {
            Some(now + Duration::from_millis(1))
        };
        let mut undecided = Vec::new();
        for id in ready.into_iter().filter(|id| !met.contains(id)) {
            let message = self.messages.get_mut(&id).expect("it was ready");
            let Some(ready_at) = message.ready_at().filter(|at| *at <= now) else {
                continue;
            };
            if Some(ready_at) < horizon {
                accept!(message.exhausted(), "L4: {id} was passed over");
                message.state = State::Dead {
                    at: now,
                    reason: DeadReason::AttemptsExhausted,
                };
            } else if Some(ready_at) == horizon && message.exhausted() {
                undecided.push(id);
            }
        }
        Ok(undecided)
    }

    /// Applies the backend's choice: of the messages that [`lease`](Model::lease) left undecided,
    /// those in `dead` are dead letters now.
    pub(crate) fn decide(&mut self, undecided: &[MessageId], dead: &[DeadLetter], now: SystemTime) {
        for id in undecided
            .iter()
            .filter(|id| dead.iter().any(|letter| letter.id == **id))
        {
            let message = self.messages.get_mut(id).expect("it was ready");
            message.state = State::Dead {
                at: now,
                reason: DeadReason::AttemptsExhausted,
            };
        }
    }

    pub(crate) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    fn ready(&self, now: SystemTime) -> Vec<MessageId> {
        let is_ready = |message: &Message| message.ready_at().is_some_and(|at| at <= now);
        self.messages
            .iter()
            .filter(|(_, m)| is_ready(m))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Judges one delivery and takes the lease. Returns the ready time before it.
    fn judge_delivery(
        &mut self,
        delivery: &Delivery,
        visibility: Option<Duration>,
        now: SystemTime,
    ) -> Result<SystemTime, Rejection> {
        let id = &delivery.id;
        accept!(
            self.seen.insert(delivery.receipt.clone()),
            "L3: the receipt of {id} is not fresh"
        );
        let Some(message) = self.messages.get_mut(id) else {
            return Err(format!(
                "A1: {id} was delivered, but it is not in the queue"
            ));
        };
        let Some(ready_at) = message.ready_at() else {
            return Err(format!("D1: {id} was delivered, but it is a dead letter"));
        };
        accept!(
            ready_at <= now,
            "L1, L2, E4: {id} was delivered before its ready time"
        );
        accept!(
            !message.exhausted(),
            "D1: {id} was delivered more often than max_attempts"
        );
        message.attempts += 1;
        let attempts = message.attempts;
        accept!(
            delivery.attempt == attempts,
            "L3: {id}: attempt {}, not {attempts}",
            delivery.attempt
        );
        let sent = &message.sent;
        accept!(
            delivery.payload == sent.payload,
            "E2, E3: {id} has another payload"
        );
        accept!(
            delivery.headers == sent.headers,
            "E2, E3: {id} has other headers"
        );
        accept!(
            delivery.enqueued_at == message.enqueued_at,
            "E3: {id} has another enqueue time"
        );
        let visibility = visibility.unwrap_or(sent.visibility_timeout_or_default());
        let expires_at = now + visibility;
        accept!(
            delivery.visibility_timeout == visibility
                && delivery.max_attempts == sent.max_attempts_or_default(),
            "L2, D1: {id} has another timeout or max_attempts"
        );
        accept!(
            delivery.lease_expires_at == expires_at,
            "L2: {id} has another expiry"
        );
        message.state = State::Live {
            ready_at: expires_at,
            receipt: Some(delivery.receipt.clone()),
        };
        Ok(ready_at)
    }

    /// The expected outcome of an ack.
    pub(crate) fn ack(&mut self, receipt: &Receipt) -> LeaseOutcome {
        let Some(id) = self.leased_with(receipt) else {
            return LeaseOutcome::Lost;
        };
        self.messages.remove(&id);
        LeaseOutcome::Applied
    }

    /// The expected outcome of a change.
    pub(crate) fn change(
        &mut self,
        receipt: &Receipt,
        action: &LeaseAction,
        now: SystemTime,
    ) -> LeaseOutcome {
        let Some(id) = self.leased_with(receipt) else {
            return LeaseOutcome::Lost;
        };
        let message = self.messages.get_mut(&id).expect("it was found");
        message.state = match action {
            LeaseAction::Extend(by) => State::Live {
                ready_at: now + *by,
                receipt: Some(receipt.clone()),
            },
            LeaseAction::Nack { delay } => State::Live {
                ready_at: now + *delay,
                receipt: None,
            },
            LeaseAction::Release => {
                message.attempts -= 1;
                State::Live {
                    ready_at: now,
                    receipt: None,
                }
            }
            LeaseAction::DeadLetter { reason } => State::Dead {
                at: now,
                reason: DeadReason::Rejected(reason.clone()),
            },
        };
        LeaseOutcome::Applied
    }

    fn leased_with(&self, receipt: &Receipt) -> Option<MessageId> {
        let leased = self
            .messages
            .iter()
            .find(|(_, message)| message.has_receipt(receipt));
        leased.map(|(id, _)| id.clone())
    }

    /// The expected count of a purge.
    pub(crate) fn purge(&mut self, what: Purge) -> u64 {
        let before = self.messages.len();
        self.messages.retain(|_, message| match what {
            Purge::Live => message.ready_at().is_none(),
            Purge::Dead => message.ready_at().is_some(),
        });
        (before - self.messages.len()) as u64
    }

    /// The expected count of a redrive of `ids`, or of all.
    pub(crate) fn redrive(&mut self, ids: Option<&[MessageId]>, now: SystemTime) -> u64 {
        let mut redriven = 0;
        for (id, message) in &mut self.messages {
            let named = ids.is_none_or(|ids| ids.contains(id));
            if named && message.ready_at().is_none() {
                message.attempts = 0;
                message.state = State::Live {
                    ready_at: now,
                    receipt: None,
                };
                redriven += 1;
            }
        }
        redriven
    }

    pub(crate) fn delete(&mut self) {
        self.messages.clear();
    }

    /// The expected stats.
    pub(crate) fn stats(&self, now: SystemTime) -> QueueStats {
        let mut stats = QueueStats::default();
        for message in self.messages.values() {
            match &message.state {
                State::Dead { .. } => stats.dead += 1,
                State::Live { ready_at, .. } if *ready_at <= now => {
                    stats.ready += 1;
                    let age = now
                        .duration_since(*ready_at)
                        .expect("it is not later than now");
                    stats.oldest_ready = stats.oldest_ready.max(Some(age));
                }
                State::Live {
                    receipt: Some(_), ..
                } => stats.leased += 1,
                State::Live { receipt: None, .. } => stats.delayed += 1,
            }
        }
        stats
    }

    /// Judges the answer of a peek.
    pub(crate) fn peek(
        &self,
        max: usize,
        now: SystemTime,
        seen: &[PeekedMessage],
    ) -> Result<(), Rejection> {
        let live = self
            .messages
            .values()
            .filter(|message| message.ready_at().is_some())
            .count();
        accept!(
            seen.len() == max.min(live),
            "M1: peek returned {} of {live}",
            seen.len()
        );
        let in_order = seen.is_sorted_by_key(|message| message.ready_at);
        accept!(in_order, "M1: peek returned messages out of order");
        let mut met = HashSet::new();
        for peeked in seen {
            let id = &peeked.id;
            accept!(met.insert(id), "M1: peek returned {id} twice");
            let Some(message) = self.messages.get(id) else {
                return Err(format!("M1: peek returned {id}, which is not in the queue"));
            };
            let Some(expected) = message.peeked(now) else {
                return Err(format!("M1: peek returned {id}, which is a dead letter"));
            };
            accept!(
                *peeked == expected,
                "M1: peek returned {peeked:?}, expected {expected:?}"
            );
        }
        let last = seen.last().map(|message| message.ready_at);
        for (id, message) in &self.messages {
            let ready_at = message.ready_at();
            let is_earlier = ready_at.is_some() && ready_at < last && !met.contains(id);
            accept!(!is_earlier, "M1: peek passed over {id}");
        }
        Ok(())
    }

    /// The expected list of live messages, in order of id.
    pub(crate) fn messages(&self, now: SystemTime) -> Vec<PeekedMessage> {
        let messages = self.messages.values();
        messages.filter_map(|message| message.peeked(now)).collect()
    }

    /// The expected list of dead letters, in order of id.
    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        let messages = self.messages.values();
        messages.filter_map(Message::dead_letter).collect()
    }
}

#[cfg(test)]
mod tests;
