//! The queues of a store and what is in them: the lookups, and enqueue.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use queue_api::{
    EnqueueOutcome, Error, ErrorKind, MessageId, NewMessage, QueueName, Receipt, Result,
};

use crate::{
    bug::Bug,
    message::{Message, Millis, Ties},
};

/// Who calls.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) connection: u64,
    /// How many receipts it has been given.
    pub(crate) receipts: AtomicU64,
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) bug: Option<Bug>,
    pub(crate) ties: Ties,
    pub(crate) queues: BTreeMap<QueueName, Vec<Message>>,
    pub(crate) numbers: Arc<AtomicU64>,
    pub(crate) memory: Memory,
}

/// What only a broken backend remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    acked: BTreeSet<(QueueName, MessageId)>,
    pub(crate) noted: BTreeSet<(QueueName, MessageId)>,
    pub(crate) purged: Vec<(Receipt, MessageId)>,
    pub(crate) deleted: BTreeSet<QueueName>,
    pub(crate) locked: BTreeSet<QueueName>,
}

impl State {
    pub(crate) fn new(bug: Option<Bug>, ties: Ties) -> Self {
        Self {
            bug,
            ties,
            queues: BTreeMap::new(),
            numbers: Arc::default(),
            memory: Memory::default(),
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// A number that no other call to this gives, not even that of a copy of the state.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn messages(&self, queue: &QueueName) -> &[Message] {
        self.queues.get(queue).map_or(&[], |messages| messages)
    }

    pub(crate) fn messages_mut(&mut self, queue: &QueueName) -> &mut Vec<Message> {
        self.queues.entry(queue.clone()).or_default()
    }

    pub(crate) fn message(&mut self, queue: &QueueName, arrival: u64) -> Option<&mut Message> {
        let mut messages = self.messages_mut(queue).iter_mut();
        messages.find(|message| message.arrival == arrival)
    }

    pub(crate) fn remove(&mut self, queue: &QueueName, arrival: u64) -> Option<Message> {
        let messages = self.messages_mut(queue);
        let index = messages.iter().position(|m| m.arrival == arrival)?;
        let removed = messages.remove(index);
        if self.has(Bug::AckedIdRefused) {
            let acked = (queue.clone(), removed.sent.id.clone());
            self.memory.acked.insert(acked);
        }
        Some(removed)
    }

    pub(crate) fn millis(&self, duration: Duration) -> Millis {
        match self.bug {
            Some(Bug::DurationsRoundedDown) => duration.as_millis() as Millis,
            _ => duration.as_nanos().div_ceil(1_000_000) as Millis,
        }
    }

    /// When a lease call may have a live message.
    pub(crate) fn due(&self, message: &Message) -> Millis {
        let ready_at = message.ready_at;
        let leased = message.lease.is_some();
        let held_back = !leased && message.attempts > 0;
        let delayed = !leased && message.attempts == 0 && ready_at > message.enqueued_at;
        match (self.bug, &message.lease) {
            (Some(Bug::LeaseHidesNothing), Some(lease)) => lease.begun_at,
            (Some(Bug::ExpiryNever), Some(_)) => Millis::MAX,
            (Some(Bug::ExpiryTickEarly), Some(_)) => ready_at - 1,
            (Some(Bug::ExpiryTickLate), Some(_)) => ready_at + 1,
            (Some(Bug::DelayTickShort), _) if delayed => ready_at - 1,
            (Some(Bug::DelayTickLong), _) if delayed => ready_at + 1,
            (Some(Bug::NackTickEarly), _) if held_back => ready_at - 1,
            _ => ready_at,
        }
    }

    pub(crate) fn is_ready(&self, message: &Message, now: Millis) -> bool {
        message.death.is_none() && self.due(message) <= now
    }

    /// Stores messages and says for each whether it was new.
    pub(crate) fn enqueue(
        &mut self,
        queue: &QueueName,
        messages: &[NewMessage],
        now: Millis,
    ) -> Result<Vec<EnqueueOutcome>> {
        if messages.is_empty() && self.has(Bug::EmptyBatchIsAnError) {
            return Err(refused("enqueue", "a batch of none"));
        }
        let mut outcomes = Vec::new();
        for (n, message) in self.as_kept(messages)?.into_iter().enumerate() {
            if n >= 16 && self.has(Bug::BatchTailDropped) {
                outcomes.push(EnqueueOutcome::Stored);
                continue;
            }
            let outcome = self.store(queue, message, now)?;
            outcomes.push(outcome);
            if outcome == EnqueueOutcome::Duplicate && self.has(Bug::DuplicateStopsBatch) {
                outcomes.resize(messages.len(), EnqueueOutcome::Duplicate);
                break;
            }
        }
        if self.has(Bug::EnqueueOutcomesUnordered) {
            outcomes.sort_by_key(|outcome| *outcome == EnqueueOutcome::Duplicate);
        }
        if self.has(Bug::DuplicatesSeenUpTo100) {
            let duplicates = outcomes
                .iter_mut()
                .filter(|o| **o == EnqueueOutcome::Duplicate);
            duplicates
                .skip(100)
                .for_each(|unseen| *unseen = EnqueueOutcome::Stored);
        }
        Ok(outcomes)
    }

    fn store(
        &mut self,
        queue: &QueueName,
        message: NewMessage,
        now: Millis,
    ) -> Result<EnqueueOutcome> {
        if self.memory.deleted.contains(queue) {
            return Ok(EnqueueOutcome::Stored);
        }
        if self
            .memory
            .acked
            .contains(&(queue.clone(), message.id.clone()))
        {
            return Ok(EnqueueOutcome::Duplicate);
        }
        if let Some((queue, arrival)) = self.stored(queue, &message.id, now) {
            return self.store_again(&queue, arrival, message, now);
        }
        let (arrival, delay) = (self.number(), self.millis(message.delay));
        let full = self.has(Bug::OldestDroppedWhenFull) && self.messages(queue).len() >= 150;
        let ready_since_enqueue = self.has(Bug::EnqueuedAtIsReadyTime);
        let mut stored = Message::new(message, arrival, now, delay);
        if ready_since_enqueue {
            stored.enqueued_at = stored.ready_at;
        }
        let messages = self.messages_mut(queue);
        if full {
            messages.remove(0);
        }
        messages.push(stored);
        Ok(EnqueueOutcome::Stored)
    }

    /// The message that has this id already.
    fn stored(&self, queue: &QueueName, id: &MessageId, now: Millis) -> Option<(QueueName, u64)> {
        let is_stored = |message: &Message| {
            let overlooked = match self.bug {
                Some(Bug::DuplicateStoredWhileLeased) => message.lease.is_some(),
                Some(Bug::DuplicateStoredWhileDelayed) => message.ready_at > now,
                Some(Bug::DuplicateStoredWhenDead) => message.death.is_some(),
                _ => false,
            };
            self.same_id(&message.sent.id, id) && !overlooked
        };
        let elsewhere = self.has(Bug::QueuesShareIds);
        let queues = self
            .queues
            .iter()
            .filter(|(name, _)| elsewhere || *name == queue);
        queues
            .flat_map(|(name, messages)| messages.iter().map(move |message| (name, message)))
            .find(|(_, message)| is_stored(message))
            .map(|(name, message)| (name.clone(), message.arrival))
    }

    fn same_id(&self, one: &MessageId, other: &MessageId) -> bool {
        let (one, other) = (one.as_str(), other.as_str());
        match self.bug {
            Some(Bug::IdsIgnoreCase) => one.to_lowercase() == other.to_lowercase(),
            Some(Bug::IdsIgnoreTrailingSpace) => one.trim_end() == other.trim_end(),
            _ => one == other,
        }
    }

    /// What becomes of a stored message when its id is enqueued again: nothing, unless a bug
    /// makes an upsert of it.
    fn store_again(
        &mut self,
        queue: &QueueName,
        arrival: u64,
        again: NewMessage,
        now: Millis,
    ) -> Result<EnqueueOutcome> {
        let bug = self.bug;
        let delay = self.millis(again.delay);
        let message = self.message(queue, arrival).expect("it was found");
        match bug {
            Some(Bug::DuplicateIsAnError) => {
                return Err(refused("enqueue", "E11000 duplicate key"));
            }
            Some(Bug::DuplicateOverwritesPayload) => message.sent.payload = again.payload,
            Some(Bug::DuplicateOverwritesTimeout) => {
                message.sent.visibility_timeout = again.visibility_timeout;
            }
            Some(Bug::DuplicateOverwritesMaxAttempts) => {
                message.sent.max_attempts = again.max_attempts;
            }
            Some(Bug::DuplicateResetsDelay) => message.ready_at = now + delay,
            Some(Bug::DuplicateResetsAttempts) => message.attempts = 0,
            Some(Bug::DuplicateResetsEnqueuedAt) => message.enqueued_at = now,
            Some(Bug::DuplicateEndsLease) => {
                message.lease = None;
                message.ready_at = now;
            }
            _ => {}
        }
        Ok(EnqueueOutcome::Duplicate)
    }
}

pub(crate) fn refused(operation: &'static str, what: &str) -> Error {
    Error::new(ErrorKind::Internal, operation, what)
}
