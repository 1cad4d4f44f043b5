//! The contract on plain data: no lock, no clock, no async.
//!
//! A live message is delayed, ready or leased. Its ready time and the time now say which, so
//! nothing has to happen at the moment when a delay or a lease ends (E4, L2).

use std::{
    collections::{BTreeMap, HashMap, btree_map, hash_map},
    mem,
    time::Duration,
};

use queue_api::{
    DeadLetterPage, DeadReason, Delivery, EnqueueOutcome, LeaseAction, LeaseChange, LeaseOptions,
    LeaseOutcome, MessageId, NewMessage, PageToken, PeekedMessage, Purge, QueueStats, Receipt,
    Redrive,
    millis::{self, Millis},
};

use crate::message::{DeadMessage, StoredMessage, message_id};

/// One queue. Each message is either live or dead.
#[derive(Debug, Default)]
pub(crate) struct MemoryQueue {
    /// The live messages in the order in which they are leased (L4). Boxed, because a tree keeps
    /// free room for more entries.
    live: BTreeMap<Position, Box<StoredMessage>>,
    /// The position of each live message.
    positions: HashMap<MessageId, Position>,
    /// The dead letters, in the order in which they are listed.
    dead: BTreeMap<MessageId, DeadMessage>,
    last_number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    /// When the message is ready. For a leased message, when the lease expires.
    ready_at: Millis,
    /// Distinct. Orders the messages of one millisecond by arrival.
    number: u64,
}

impl MemoryQueue {
    pub(crate) fn len(&self) -> usize {
        self.live.len() + self.dead.len()
    }

    /// Whether the queue holds the id, in whatever state (E2).
    pub(crate) fn contains(&self, id: &MessageId) -> bool {
        self.positions.contains_key(id) || self.dead.contains_key(id)
    }

    /// When the first message is ready, which may be in the past (W1).
    pub(crate) fn next_ready(&self) -> Option<Millis> {
        Some(self.live.first_key_value()?.0.ready_at)
    }

    /// Makes room for a batch at once, so that the hash table does not grow step by step.
    pub(crate) fn reserve(&mut self, messages: usize) {
        self.positions.reserve(messages);
    }

    /// E1, E2, E3: stores the message as it was sent, unless the queue holds its id.
    pub(crate) fn enqueue(&mut self, message: &NewMessage, now: Millis) -> EnqueueOutcome {
        let position = self.new_position(after(now, message.delay_or_default()));
        let hash_map::Entry::Vacant(id) = self.positions.entry(message.id.clone()) else {
            return EnqueueOutcome::Duplicate;
        };
        if self.dead.contains_key(&message.id) {
            return EnqueueOutcome::Duplicate;
        }
        id.insert(position);
        let stored = StoredMessage::new(message.clone(), now);
        self.live.insert(position, Box::new(stored));
        EnqueueOutcome::Stored
    }

    /// L1, L2, L4: takes the first ready messages and puts them back with a ready time that is
    /// the end of the lease.
    pub(crate) fn lease(&mut self, options: &LeaseOptions, now: Millis) -> Vec<Delivery> {
        let at_most = options.max_messages().min(self.live.len());
        let mut deliveries = Vec::with_capacity(at_most);
        while deliveries.len() < at_most
            && let Some(first) = self.live.first_entry()
            && first.key().ready_at <= now
        {
            let mut message = first.remove();
            if message.attempts >= message.sent.max_attempts_or_default() {
                // D1: the lease call that meets an exhausted message makes it a dead letter.
                self.dead_letter(message, DeadReason::AttemptsExhausted, now);
                continue;
            }
            let own_timeout = message.sent.visibility_timeout_or_default();
            let timeout = millis::ceil(options.visibility_timeout().unwrap_or(own_timeout));
            deliveries.push(message.deliver(now, timeout));
            self.insert(message, now.saturating_add(timeout));
        }
        deliveries
    }

    /// A1: ends the message.
    pub(crate) fn ack(&mut self, receipt: &Receipt) -> LeaseOutcome {
        let Some(message) = self.take(receipt) else {
            return LeaseOutcome::Lost;
        };
        self.forget(&message.sent.id);
        LeaseOutcome::Applied
    }

    /// A5: moves or ends the lease. Only an extension keeps the receipt valid (A4).
    pub(crate) fn change(&mut self, change: &LeaseChange, now: Millis) -> LeaseOutcome {
        let Some(mut message) = self.take(&change.receipt) else {
            return LeaseOutcome::Lost;
        };
        match &change.action {
            LeaseAction::Extend(by) => self.insert(message, after(now, *by)),
            LeaseAction::Nack { delay } => self.insert_unleased(message, after(now, *delay)),
            LeaseAction::Release => {
                message.attempts -= 1;
                self.insert_unleased(message, now);
            }
            LeaseAction::DeadLetter { reason } => {
                self.dead_letter(message, DeadReason::Rejected(reason.clone()), now);
            }
        }
        LeaseOutcome::Applied
    }

    /// S1: counts the messages, so it goes through the whole queue.
    pub(crate) fn stats(&self, now: Millis) -> QueueStats {
        let ready = self.live.keys().take_while(|at| at.ready_at <= now).count();
        let later = self.live.values().skip(ready);
        let leased = later.filter(|message| message.delivery.is_some()).count();
        let age = |ready_at| u64::try_from(now - ready_at).ok();
        QueueStats::default()
            .with_ready(ready as u64)
            .with_delayed((self.live.len() - ready - leased) as u64)
            .with_leased(leased as u64)
            .with_dead(self.dead.len() as u64)
            .with_oldest_ready(self.next_ready().and_then(age).map(Duration::from_millis))
    }

    /// Takes the message whose last delivery `receipt` is for. No clock is asked (A3).
    ///
    /// The caller inserts the message again or forgets its id.
    fn take(&mut self, receipt: &Receipt) -> Option<Box<StoredMessage>> {
        let position = self.positions.get(&message_id(receipt)?)?;
        let btree_map::Entry::Occupied(message) = self.live.entry(*position) else {
            return None;
        };
        message.get().accepts(receipt).then(|| message.remove())
    }

    /// Removes the id of a message that is not live any more.
    fn forget(&mut self, id: &MessageId) {
        self.positions.remove(id);
        if self.positions.len() < self.positions.capacity() / 8 {
            // A hash table does not shrink by itself.
            self.positions.shrink_to(2 * self.positions.len());
        }
    }

    fn new_position(&mut self, ready_at: Millis) -> Position {
        self.last_number += 1;
        let number = self.last_number;
        Position { ready_at, number }
    }

    /// Inserts a live message and keeps its receipt valid.
    fn insert(&mut self, message: Box<StoredMessage>, ready_at: Millis) {
        let position = self.new_position(ready_at);
        match self.positions.get_mut(&message.sent.id) {
            Some(of_message) => *of_message = position,
            None => _ = self.positions.insert(message.sent.id.clone(), position),
        }
        self.live.insert(position, message);
    }

    fn insert_unleased(&mut self, mut message: Box<StoredMessage>, ready_at: Millis) {
        message.delivery = None;
        self.insert(message, ready_at);
    }

    /// D1: a dead letter keeps all of the message.
    fn dead_letter(&mut self, message: Box<StoredMessage>, reason: DeadReason, now: Millis) {
        let id = message.sent.id.clone();
        self.forget(&id);
        let died_at = now;
        let dead = DeadMessage {
            message,
            died_at,
            reason,
        };
        self.dead.insert(id, dead);
    }
}

/// M1: what an administrator asks for.
impl MemoryQueue {
    pub(crate) fn peek(&self, max: usize, now: Millis) -> Vec<PeekedMessage> {
        let first = self.live.iter().take(max);
        first
            .map(|(position, message)| message.peeked(position.ready_at, now))
            .collect()
    }

    pub(crate) fn purge(&mut self, what: Purge) -> u64 {
        let purged = match what {
            Purge::Live => {
                self.positions = HashMap::new();
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
            self.insert_unleased(message, now);
        }
        count
    }
}

fn after(now: Millis, delay: Duration) -> Millis {
    now.saturating_add(millis::ceil(delay))
}
