//! One queue as a plain data structure: no clock, no lock, no async.
//!
//! Every operation is told what time it is and first *promotes* what has fallen due, so each
//! message is in exactly one of three sets, and each count is the size of one. Promotion
//! moves a message once per delay or lease, which keeps every operation O(log n) amortised.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    time::Duration,
};

use queue_api::{
    DeadReason, Delivery, EnqueueOutcome, LeaseAction, LeaseOutcome, MessageId, NewMessage,
    QueueStats, Receipt,
    millis::{self, Millis},
};

use crate::message::{Message, Place, Position};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) messages: HashMap<MessageId, Message>,
    pub(crate) ready: BTreeMap<Position, MessageId>,
    pub(crate) pending: BTreeMap<Position, MessageId>,
    pub(crate) dead: BTreeSet<MessageId>,
    /// How many of the pending are leased.
    leased: u64,
    arrivals: u64,
}

impl State {
    /// When the first message is or will be ready.
    pub(crate) fn head(&self) -> Option<Millis> {
        let first = self
            .ready
            .first_key_value()
            .or(self.pending.first_key_value());
        first.map(|((due, _), _)| *due)
    }

    /// Moves what has fallen due to the ready set. At its ready time a message is ready.
    pub(crate) fn promote(&mut self, now: Millis) {
        while let Some(entry) = self.pending.first_entry() {
            let position = *entry.key();
            if position.0 > now {
                break;
            }
            let id = entry.remove();
            let message = self.messages.get_mut(&id).expect(STORED);
            self.leased -= u64::from(message.token.is_some());
            message.place = Place::Ready(position);
            self.ready.insert(position, id);
        }
    }

    /// Stores a message, unless the id is there.
    pub(crate) fn enqueue(&mut self, message: &NewMessage, now: Millis) -> EnqueueOutcome {
        let Entry::Vacant(vacant) = self.messages.entry(message.id.clone()) else {
            return EnqueueOutcome::Duplicate;
        };
        vacant.insert(Message::new(message, now));
        self.schedule(
            message.id.clone(),
            now.saturating_add(millis::ceil(message.delay)),
            None,
        );
        EnqueueOutcome::Stored
    }

    /// Leases up to `max` messages in order, for `visibility` or else for each its own, and
    /// buries the exhausted ones that it meets on the way. `new_token` makes the receipts.
    pub(crate) fn lease(
        &mut self,
        max: usize,
        visibility: Option<Millis>,
        now: Millis,
        mut new_token: impl FnMut() -> u64,
    ) -> Vec<Delivery> {
        self.promote(now);
        let mut deliveries = Vec::with_capacity(max.min(self.ready.len()));
        while deliveries.len() < max {
            let Some((_, id)) = self.ready.pop_first() else {
                break;
            };
            let message = self.messages.get_mut(&id).expect(STORED);
            if message.attempts >= message.max_attempts {
                self.bury(id, now, DeadReason::AttemptsExhausted);
                continue;
            }
            message.attempts += 1;
            let token = new_token();
            let visibility = visibility.unwrap_or(message.visibility);
            let receipt = to_receipt(token, &id);
            deliveries.push(message.delivery(&id, now, visibility, receipt));
            self.schedule(id, now.saturating_add(visibility), Some(token));
        }
        deliveries
    }

    pub(crate) fn ack(&mut self, receipt: &Receipt, now: Millis) -> LeaseOutcome {
        self.promote(now);
        let Some(id) = self.holder(receipt) else {
            return LeaseOutcome::Lost;
        };
        self.remove(&id);
        LeaseOutcome::Applied
    }

    pub(crate) fn change(
        &mut self,
        receipt: &Receipt,
        action: &LeaseAction,
        now: Millis,
    ) -> LeaseOutcome {
        self.promote(now);
        let Some(id) = self.holder(receipt) else {
            return LeaseOutcome::Lost;
        };
        self.unschedule(&id);
        let message = self.messages.get_mut(&id).expect(STORED);
        match action {
            LeaseAction::Extend(by) => {
                let token = message.token;
                self.schedule(id, now.saturating_add(millis::ceil(*by)), token);
            }
            LeaseAction::Nack { delay } => {
                self.schedule(id, now.saturating_add(millis::ceil(*delay)), None)
            }
            LeaseAction::Return => {
                message.attempts -= 1;
                self.schedule(id, now, None);
            }
            LeaseAction::DeadLetter { reason } => {
                self.bury(id, now, DeadReason::Rejected(reason.clone()));
            }
        }
        LeaseOutcome::Applied
    }

    pub(crate) fn stats(&mut self, now: Millis) -> QueueStats {
        self.promote(now);
        let oldest = self.ready.first_key_value().map(|((due, _), _)| *due);
        QueueStats {
            ready: self.ready.len() as u64,
            delayed: self.pending.len() as u64 - self.leased,
            leased: self.leased,
            dead: self.dead.len() as u64,
            oldest_ready: oldest
                .map(|due| Duration::from_millis(now.saturating_sub(due).max(0).unsigned_abs())),
        }
    }

    /// Makes a dead letter ready, as if it had never been delivered.
    pub(crate) fn redrive(&mut self, id: &MessageId, now: Millis) -> bool {
        if !self.dead.remove(id) {
            return false;
        }
        self.messages.get_mut(id).expect(STORED).attempts = 0;
        self.schedule(id.clone(), now, None);
        true
    }

    /// Takes a message out of the store, whatever its state.
    pub(crate) fn remove(&mut self, id: &MessageId) {
        self.unschedule(id);
        self.messages.remove(id);
        self.dead.remove(id);
        // What the queue takes follows what it holds and not the most that it ever held. A
        // tree gives memory back by itself, a hash map has to be told.
        if self.messages.capacity() > 1024 && self.messages.len() < self.messages.capacity() / 8 {
            self.messages.shrink_to(self.messages.len() * 2);
        }
    }

    /// The message whose current delivery `receipt` proves.
    fn holder(&self, receipt: &Receipt) -> Option<MessageId> {
        let id = id_of(receipt)?;
        let token = self.messages.get(&id)?.token?;
        // Compared as text: there is one way to write a receipt, and any other is made up.
        (to_receipt(token, &id) == *receipt).then_some(id)
    }

    /// Puts a message that is in no set among the pending, leased where `token` is given.
    /// What is due at once is promoted by the next operation like everything else.
    fn schedule(&mut self, id: MessageId, due: Millis, token: Option<u64>) {
        let position = (due, self.arrivals);
        self.arrivals += 1;
        self.leased += u64::from(token.is_some());
        let message = self.messages.get_mut(&id).expect(STORED);
        message.token = token;
        message.place = Place::Pending(position);
        self.pending.insert(position, id);
    }

    fn unschedule(&mut self, id: &MessageId) {
        let message = &self.messages[id];
        match &message.place {
            Place::Ready(position) => {
                self.ready.remove(position);
            }
            Place::Pending(position) => {
                self.leased -= u64::from(message.token.is_some());
                self.pending.remove(position);
            }
            Place::Dead { .. } => {}
        }
    }

    /// Makes a dead letter of a message that is in no set.
    fn bury(&mut self, id: MessageId, at: Millis, reason: DeadReason) {
        let message = self.messages.get_mut(&id).expect(STORED);
        message.token = None;
        message.place = Place::Dead { at, reason };
        self.dead.insert(id);
    }
}

// The invariant of this file: an id is in a set if and only if its message says so.
const STORED: &str = "an id in a set is that of a stored message";

fn to_receipt(token: u64, id: &MessageId) -> Receipt {
    Receipt::new(format!("{token:x}-{id}"))
}

fn id_of(receipt: &Receipt) -> Option<MessageId> {
    let (_, id) = receipt.as_str().split_once('-')?;
    MessageId::new(id).ok()
}
