//! The contract on plain data: no lock, no clock, no async.
//!
//! A live message is delayed, ready or leased. Its ready time and the time now say which, so
//! nothing has to happen at the moment when a delay or a lease ends (E4, L2).

use std::{collections::BTreeMap, mem, time::Duration};

use hashbrown::HashMap;
use queue_api::{
    DeadLetterPage, DeadReason, Delivery, EnqueueOutcome, LeaseAction, LeaseChange, LeaseOptions,
    LeaseOutcome, MessageId, MessagePage, NewMessage, PageToken, PeekedMessage, Purge, QueueStats,
    Receipt, Redrive,
    millis::{self, Millis},
};

use crate::message::{DeadMessage, Position, StoredMessage};

/// One queue. Each message is either live or dead.
#[derive(Debug, Default)]
pub(crate) struct MemoryQueue {
    /// The live messages. Boxed, because a table keeps free room for more entries.
    live: HashMap<MessageId, Box<StoredMessage>>,
    /// The live messages in the order in which they are leased (L4).
    order: BTreeMap<Position, MessageId>,
    /// The dead letters, in the order in which they are listed.
    dead: BTreeMap<MessageId, DeadMessage>,
    last_number: u64,
}

impl MemoryQueue {
    pub(crate) fn len(&self) -> usize {
        self.live.len() + self.dead.len()
    }

    /// Whether the queue holds the id, in whatever state (E2).
    pub(crate) fn contains(&self, id: &MessageId) -> bool {
        self.live.contains_key(id) || self.dead.contains_key(id)
    }

    /// When the first message is ready, which may be in the past (W1).
    pub(crate) fn next_ready(&self) -> Option<Millis> {
        Some(self.order.first_key_value()?.0.ready_at)
    }

    /// Makes room for a batch at once, so that the hash table does not grow step by step.
    pub(crate) fn reserve(&mut self, messages: usize) {
        self.live.reserve(messages);
    }

    /// E1, E2, E3: stores the message as it was sent, unless the queue holds its id.
    pub(crate) fn enqueue(&mut self, message: &NewMessage, now: Millis) -> EnqueueOutcome {
        if self.contains(&message.id) {
            return EnqueueOutcome::Duplicate;
        }
        let ready_at = after(now, message.delay_or_default());
        self.insert(Box::new(StoredMessage::new(message.clone(), now)), ready_at);
        EnqueueOutcome::Stored
    }

    /// L1, L2, L4: leases the first ready messages. Each is ready again when its lease ends.
    pub(crate) fn lease(&mut self, options: &LeaseOptions, now: Millis) -> Vec<Delivery> {
        let at_most = options.max_messages().min(self.live.len());
        let mut deliveries = Vec::with_capacity(at_most);
        // Put back in the end, so that the call meets no message twice.
        let mut leased = Vec::with_capacity(at_most);
        while deliveries.len() < at_most
            && let Some(first) = self.order.first_entry()
            && first.key().ready_at <= now
            && let Some(message) = self.live.get_mut(first.get())
        {
            let id = first.remove();
            if message.attempts >= message.sent.max_attempts_or_default() {
                // D1: the lease call that meets an exhausted message makes it a dead letter.
                self.dead_letter(&id, DeadReason::AttemptsExhausted, now);
                continue;
            }
            let own_timeout = message.sent.visibility_timeout_or_default();
            let timeout = millis::ceil(options.visibility_timeout().unwrap_or(own_timeout));
            deliveries.push(message.deliver(now, timeout));
            self.last_number += 1;
            message.position = Position {
                ready_at: now.saturating_add(timeout),
                number: self.last_number,
            };
            leased.push((message.position, id));
        }
        self.order.extend(leased);
        deliveries
    }

    /// A1: ends the message.
    pub(crate) fn ack(&mut self, receipt: &Receipt) -> LeaseOutcome {
        match self.held(receipt) {
            Some((id, _)) => {
                self.remove(id);
                LeaseOutcome::Applied
            }
            None => LeaseOutcome::Lost,
        }
    }

    /// A5: moves or ends the lease. Only an extension keeps the receipt valid (A4).
    pub(crate) fn change(&mut self, change: &LeaseChange, now: Millis) -> LeaseOutcome {
        let Some((id, message)) = self.held(&change.receipt) else {
            return LeaseOutcome::Lost;
        };
        let ready_at = match &change.action {
            LeaseAction::Extend(by) => after(now, *by),
            LeaseAction::Nack { delay } => {
                message.delivery = None;
                after(now, *delay)
            }
            LeaseAction::Release => {
                message.delivery = None;
                message.attempts -= 1;
                now
            }
            LeaseAction::DeadLetter { reason } => {
                self.dead_letter(id, DeadReason::Rejected(reason.clone()), now);
                return LeaseOutcome::Applied;
            }
        };
        self.last_number += 1;
        let number = self.last_number;
        if let Some(message) = self.live.get_mut(id)
            && let Some(id) = self.order.remove(&message.position)
        {
            message.position = Position { ready_at, number };
            self.order.insert(message.position, id);
        }
        LeaseOutcome::Applied
    }

    /// S1: counts the messages, so it goes through the whole queue.
    pub(crate) fn stats(&self, now: Millis) -> QueueStats {
        let is_ready = |message: &StoredMessage| message.position.ready_at <= now;
        let is_leased = |message: &StoredMessage| !is_ready(message) && message.delivery.is_some();
        let ready = self.live.values().filter(|it| is_ready(it)).count();
        let leased = self.live.values().filter(|it| is_leased(it)).count();
        let age = |ready_at| u64::try_from(now - ready_at).ok();
        QueueStats::default()
            .with_ready(ready as u64)
            .with_delayed((self.live.len() - ready - leased) as u64)
            .with_leased(leased as u64)
            .with_dead(self.dead.len() as u64)
            .with_oldest_ready(self.next_ready().and_then(age).map(Duration::from_millis))
    }

    /// The message whose last delivery `receipt` is for. No clock is asked (A3).
    fn held<'r>(&mut self, receipt: &'r Receipt) -> Option<(&'r str, &mut StoredMessage)> {
        let (delivery, id) = receipt.as_str().split_once('-')?;
        let message = self.live.get_mut(id)?;
        message.accepts(delivery).then_some((id, &mut **message))
    }

    /// Takes a live message out.
    fn remove(&mut self, id: &str) -> Option<Box<StoredMessage>> {
        let message = self.live.remove(id)?;
        self.order.remove(&message.position);
        if self.live.len() < self.live.capacity() / 8 {
            // A hash table does not shrink by itself.
            self.live.shrink_to(2 * self.live.len());
        }
        Some(message)
    }

    /// D1: a dead letter keeps all of the message.
    fn dead_letter(&mut self, id: impl AsRef<str>, reason: DeadReason, died_at: Millis) {
        if let Some(message) = self.remove(id.as_ref()) {
            let id = message.sent.id.clone();
            let dead = DeadMessage {
                message,
                died_at,
                reason,
            };
            self.dead.insert(id, dead);
        }
    }

    /// Adds a message that has no lease, ready at this time.
    fn insert(&mut self, mut message: Box<StoredMessage>, ready_at: Millis) {
        self.last_number += 1;
        message.delivery = None;
        message.position = Position {
            ready_at,
            number: self.last_number,
        };
        self.order.insert(message.position, message.sent.id.clone());
        self.live.insert(message.sent.id.clone(), message);
    }
}

/// M1: what an administrator asks for.
impl MemoryQueue {
    pub(crate) fn peek(&self, max: usize, now: Millis) -> Vec<PeekedMessage> {
        let first = self.order.values().take(max);
        let messages = first.filter_map(|id| self.live.get(id));
        messages.map(|message| message.peeked(now)).collect()
    }

    /// In order of id, because that never changes. It goes through the whole queue, which keeps no
    /// such order.
    pub(crate) fn messages(
        &self,
        after: Option<&MessageId>,
        max: usize,
        now: Millis,
    ) -> MessagePage {
        let is_later = |message: &&StoredMessage| after.is_none_or(|id| message.sent.id > *id);
        let all = self.live.values().map(|message| &**message);
        let mut later: Vec<&StoredMessage> = all.filter(is_later).collect();
        let is_last = later.len() <= max;
        if !is_last {
            later.select_nth_unstable_by(max, |one, other| one.sent.id.cmp(&other.sent.id));
            later.truncate(max);
        }
        later.sort_unstable_by(|one, other| one.sent.id.cmp(&other.sent.id));
        let messages: Vec<_> = later.iter().map(|message| message.peeked(now)).collect();
        let last = messages.last().filter(|_| !is_last);
        let next = last.map(|message| PageToken::new(message.id.as_str()));
        MessagePage::new(messages).with_next(next)
    }

    pub(crate) fn purge(&mut self, what: Purge) -> u64 {
        let purged = match what {
            Purge::Live => {
                self.order = BTreeMap::new();
                mem::take(&mut self.live).len()
            }
            Purge::Dead => mem::take(&mut self.dead).len(),
        };
        purged as u64
    }

    pub(crate) fn dead_letters(&self, after: Option<MessageId>, max: usize) -> DeadLetterPage {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = after.map_or(Unbounded, Excluded);
        let mut listed = self.dead.range::<MessageId, _>((after, Unbounded));
        let page = listed.by_ref().take(max);
        let letters: Vec<_> = page.map(|(_, dead)| dead.listed()).collect();
        let is_last = listed.next().is_none();
        let last = letters.last().filter(|_| !is_last);
        let next = last.map(|letter| PageToken::new(letter.id.as_str()));
        DeadLetterPage::new(letters).with_next(next)
    }

    /// D1: starts dead letters afresh, with no attempt counted.
    pub(crate) fn redrive(&mut self, which: &Redrive, now: Millis) -> u64 {
        let redriven: Vec<_> = match which {
            Redrive::All => mem::take(&mut self.dead).into_values().collect(),
            Redrive::Ids(ids) => ids.iter().filter_map(|id| self.dead.remove(id)).collect(),
        };
        let count = redriven.len() as u64;
        for DeadMessage { mut message, .. } in redriven {
            message.attempts = 0;
            self.insert(message, now);
        }
        count
    }
}

fn after(now: Millis, delay: Duration) -> Millis {
    now.saturating_add(millis::ceil(delay))
}
