//! One queue as a plain data structure: no clock, no lock, no async.
//!
//! It is told what time it is by [`State::advance`], which moves what has fallen due from the
//! *pending* to the *ready*, once for each delay or lease. All that was ready before was ready
//! earlier, and what becomes ready now comes later. So the ready messages are in order of ready
//! time by standing in line; only the times at which pending ones fall due have to be sorted.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    iter, mem,
    num::NonZeroU64,
    time::Duration,
};

use queue_api::{
    DeadReason, Delivery, EnqueueOutcome, LeaseAction, LeaseOutcome, MessageId, NewMessage,
    QueueStats, Receipt,
    millis::{self, Millis},
};

use crate::{
    line::Line,
    message::{Death, Message, Place, Set},
    messages::{Messages, Slot},
    receipt,
};

/// Each message is in exactly one of three sets, and says in which and where.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) messages: Messages,
    pub(crate) ready: Line,
    /// By the millisecond in which they fall due; no line is empty.
    pub(crate) pending: BTreeMap<Millis, Line>,
    pub(crate) dead: BTreeMap<MessageId, Slot>,
    /// How many of the pending are not leased.
    delayed: u64,
    leased: u64,
    now: Millis,
}

impl State {
    /// When the first message will be ready; what is ready is so since ever, also by a clock that
    /// went back.
    pub(crate) fn head(&self) -> Option<Millis> {
        let pending = || Some(*self.pending.first_key_value()?.0);
        let ready = self.ready.first(&self.messages).map(|_| Millis::MIN);
        ready.or_else(pending)
    }

    /// All that are not dead, in order of ready time, with that time.
    pub(crate) fn live(&self) -> impl Iterator<Item = (Slot, Millis)> {
        let lines = iter::once(&self.ready).chain(self.pending.values());
        lines.flat_map(|line| line.iter(&self.messages))
    }

    /// Says what time it is for all that follows. At its ready time a message is ready. Time that
    /// goes back is no time at all: what was ready stays so, and stays in order.
    pub(crate) fn advance(&mut self, now: Millis) {
        self.now = self.now.max(now);
        while let Some(first) = self.pending.first_entry()
            && *first.key() <= self.now
        {
            let (due, mut line) = first.remove_entry();
            while let Some(slot) = line.leave_first(&mut self.messages) {
                *self.count_with(slot) -= 1;
                self.ready.join(&mut self.messages, slot, Set::Ready, due);
            }
        }
    }

    /// Stores a message, unless the id is there.
    pub(crate) fn enqueue(&mut self, message: &NewMessage) -> EnqueueOutcome {
        let now = self.now;
        let make = || Message::new(message, now);
        let Some(slot) = self.messages.insert_new(message.id.as_str(), make) else {
            return EnqueueOutcome::Duplicate;
        };
        self.release(slot, message.delay);
        EnqueueOutcome::Stored
    }

    /// Leases up to `max` messages in order, for `visibility` or else for each its own, and
    /// buries the exhausted ones that it meets on the way. `new_token` makes the receipts.
    pub(crate) fn lease(
        &mut self,
        max: usize,
        visibility: Option<Millis>,
        mut new_token: impl FnMut() -> NonZeroU64,
    ) -> Vec<Delivery> {
        let ready = usize::try_from(self.ready.len()).unwrap_or(usize::MAX);
        let mut deliveries = Vec::with_capacity(max.min(ready));
        while deliveries.len() < max
            && let Some(slot) = self.ready.leave_first(&mut self.messages)
        {
            let message = &mut self.messages[slot];
            if message.attempts >= message.max_attempts {
                self.bury(slot, DeadReason::AttemptsExhausted);
                continue;
            }
            message.attempts += 1;
            let token = new_token();
            let visibility = visibility.unwrap_or(message.visibility);
            let until = self.now.saturating_add(visibility);
            deliveries.push(message.delivery(token, visibility, until));
            self.hold(slot, until, Some(token));
        }
        deliveries
    }

    /// Needs no time, since none decides it (A3).
    pub(crate) fn ack(&mut self, receipt: &Receipt) -> LeaseOutcome {
        let Some(slot) = self.holder(receipt) else {
            return LeaseOutcome::Lost;
        };
        self.remove(slot);
        LeaseOutcome::Applied
    }

    pub(crate) fn change(&mut self, receipt: &Receipt, action: &LeaseAction) -> LeaseOutcome {
        let Some(slot) = self.holder(receipt) else {
            return LeaseOutcome::Lost;
        };
        self.leave_set(slot);
        let message = &mut self.messages[slot];
        match action {
            LeaseAction::Extend(by) => {
                let (until, token) = (self.after(*by), self.messages[slot].token);
                self.hold(slot, until, token);
            }
            LeaseAction::Nack { delay } => self.release(slot, *delay),
            LeaseAction::Release => {
                message.attempts -= 1;
                self.release(slot, Duration::ZERO);
            }
            LeaseAction::DeadLetter { reason } => {
                self.bury(slot, DeadReason::Rejected(reason.clone()));
            }
        }
        LeaseOutcome::Applied
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let age = |since| Duration::from_millis(self.now.saturating_sub(since).unsigned_abs());
        QueueStats {
            ready: self.ready.len(),
            delayed: self.delayed,
            leased: self.leased,
            dead: self.dead.len() as u64,
            oldest_ready: self.ready.first(&self.messages).map(age),
        }
    }

    /// Makes a dead letter ready, as if it had never been delivered.
    pub(crate) fn redrive(&mut self, id: &MessageId) -> bool {
        let Some(slot) = self.dead.remove(id) else {
            return false;
        };
        self.messages[slot].attempts = 0;
        self.release(slot, Duration::ZERO);
        true
    }

    /// Takes a message out of the store, whatever its state.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.leave_set(slot);
        self.messages.remove(slot);
    }

    /// Gives memory back where many messages have been removed, so that what the queue takes
    /// follows what it holds and not the most that it ever held: those that are left move.
    pub(crate) fn compact(&mut self) {
        if !self.messages.is_sparse() {
            return;
        }
        let mut old = mem::take(&mut self.messages);
        for line in self.pending.values_mut().chain([&mut self.ready]) {
            line.relocate(&mut old, &mut self.messages);
        }
        for slot in self.dead.values_mut() {
            *slot = self.messages.insert(old.remove(*slot));
        }
    }

    /// The message whose current delivery `receipt` proves.
    fn holder(&self, receipt: &Receipt) -> Option<Slot> {
        let (token, id) = receipt::parts(receipt)?;
        let slot = self.messages.find(id)?;
        receipt::is_token(token, self.messages[slot].token?).then_some(slot)
    }

    fn after(&self, duration: Duration) -> Millis {
        self.now.saturating_add(millis::ceil(duration))
    }

    /// Has a message that is in no set, and that nobody holds any more, ready after `delay`.
    fn release(&mut self, slot: Slot, delay: Duration) {
        if delay.is_zero() {
            self.messages[slot].token = None;
            let (now, messages) = (self.now, &mut self.messages);
            self.ready.join(messages, slot, Set::Ready, now);
        } else {
            self.hold(slot, self.after(delay), None);
        }
    }

    /// Puts a message that is in no set among the pending, leased where `token` is given.
    fn hold(&mut self, slot: Slot, due: Millis, token: Option<NonZeroU64>) {
        self.messages[slot].token = token;
        *self.count_with(slot) += 1;
        let line = self.pending.entry(due).or_default();
        line.join(&mut self.messages, slot, Set::Pending, due);
    }

    /// The count that a pending message is part of.
    fn count_with(&mut self, slot: Slot) -> &mut u64 {
        match self.messages[slot].token {
            Some(_) => &mut self.leased,
            None => &mut self.delayed,
        }
    }

    /// Takes a message out of the set that it is in.
    fn leave_set(&mut self, slot: Slot) {
        match self.messages[slot].place {
            Place::InLine(Set::Ready, _) => self.ready.leave(&mut self.messages, slot),
            Place::InLine(Set::Pending, standing) => {
                *self.count_with(slot) -= 1;
                let Entry::Occupied(mut line) = self.pending.entry(standing.at) else {
                    panic!("{standing:?} in a line that is not there");
                };
                line.get_mut().leave(&mut self.messages, slot);
                if line.get().is_empty() {
                    line.remove();
                }
            }
            Place::Dead(_) => {
                self.dead.remove(&self.messages[slot].id);
            }
        }
    }

    /// Makes a dead letter of a message that is in no set.
    fn bury(&mut self, slot: Slot, reason: DeadReason) {
        let message = &mut self.messages[slot];
        message.token = None;
        message.place = Place::Dead(Box::new(Death {
            at: self.now,
            reason,
        }));
        self.dead.insert(message.id.clone(), slot);
    }
}
