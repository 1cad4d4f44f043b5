//! What can be seen of a queue without changing it: states, counts, and when to look again.

use std::time::Duration;

use queue_api::{
    DeadLetter, DeadLetterPage, MessageState, PeekedMessage, QueueName, QueueStats, Result,
};

use crate::{
    bug::Bug,
    message::{Message, Millis, to_time},
    state::{State, refused},
};

impl State {
    /// The state of a live message.
    fn state_of(&self, message: &Message, now: Millis) -> MessageState {
        match &message.lease {
            _ if self.is_ready(message, now) => MessageState::Ready,
            Some(_) => MessageState::Leased,
            None => MessageState::Delayed,
        }
    }

    pub(crate) fn stats(&self, queue: &QueueName, now: Millis) -> QueueStats {
        let mut stats = QueueStats::default();
        let mut ages = Vec::new();
        for message in self.counted(queue) {
            if message.death.is_some() {
                stats.dead += u64::from(!self.has(Bug::DeadNotCounted));
                continue;
            }
            let state = self.state_of(message, now);
            if state == MessageState::Ready {
                ages.push(match self.bug {
                    Some(Bug::OldestSinceEnqueue) => now - message.enqueued_at,
                    _ => now.saturating_sub(message.ready_at),
                });
            }
            *self.counter(&mut stats, message, state) += 1;
        }
        let age = match self.bug {
            Some(Bug::OldestIsTheNewest) => ages.into_iter().min(),
            Some(Bug::OldestInWholeSeconds) => ages.into_iter().max().map(|age| age / 1000 * 1000),
            _ => ages.into_iter().max(),
        };
        stats.oldest_ready = age.map(Duration::from_millis);
        stats
    }

    fn counted<'a>(&'a self, queue: &'a QueueName) -> impl Iterator<Item = &'a Message> {
        let prefix = self.has(Bug::StatsByPrefix);
        let queues = self.queues.iter().filter(move |(name, _)| {
            *name == queue || prefix && name.as_str().starts_with(queue.as_str())
        });
        queues.flat_map(|(_, messages)| messages)
    }

    fn counter<'a>(
        &self,
        stats: &'a mut QueueStats,
        message: &Message,
        state: MessageState,
    ) -> &'a mut u64 {
        let exhausted = message.attempts >= message.sent.max_attempts;
        match (self.bug, state) {
            (Some(Bug::ExhaustedCountsAsDead), MessageState::Ready) if exhausted => &mut stats.dead,
            (Some(Bug::ExpiredCountsAsLeased), MessageState::Ready) if message.lease.is_some() => {
                &mut stats.leased
            }
            (Some(Bug::DelayedCountsAsReady), MessageState::Delayed) => &mut stats.ready,
            (Some(Bug::HeldBackCountsAsLeased), MessageState::Delayed) if message.attempts > 0 => {
                &mut stats.leased
            }
            (_, MessageState::Ready) => &mut stats.ready,
            (_, MessageState::Delayed) => &mut stats.delayed,
            (_, MessageState::Leased) => &mut stats.leased,
        }
    }

    /// When a wait has to look again: when the first message is or will be ready.
    pub(crate) fn next_due(&self, queue: &QueueName, now: Millis) -> Option<Millis> {
        let seen = |message: &&Message| match self.bug {
            Some(Bug::WaitDoesNotLookFirst) => self.due(message) > now,
            Some(Bug::WaitSleepsOnDelays) => message.lease.is_some() || message.ready_at <= now,
            Some(Bug::WaitSleepsOnLeases) => message.lease.is_none() || message.ready_at <= now,
            _ => true,
        };
        let live = self
            .messages(queue)
            .iter()
            .filter(|message| message.death.is_none());
        live.filter(seen).map(|message| self.due(message)).min()
    }

    pub(crate) fn peek(
        &mut self,
        queue: &QueueName,
        max: usize,
        now: Millis,
    ) -> Vec<PeekedMessage> {
        let seen = |message: &&Message| match self.bug {
            Some(Bug::PeekShowsDead) => true,
            Some(Bug::PeekShowsReadyOnly) => self.is_ready(message, now),
            _ => message.death.is_none(),
        };
        let mut shown: Vec<_> = self.messages(queue).iter().filter(seen).collect();
        match self.bug {
            Some(Bug::PeekInOrderOfEnqueue) => {}
            _ => shown.sort_by_key(|message| (message.ready_at, self.ties.rank(message))),
        }
        match self.bug {
            Some(Bug::PeekIgnoresMax) => {}
            Some(Bug::PeekNoneIsAll) if max == 0 => {}
            Some(Bug::PeekFirstOnly) => shown.truncate(max.min(101)),
            _ => shown.truncate(max),
        }
        let peeked = shown
            .iter()
            .map(|message| self.peeked(message, now))
            .collect();
        let arrivals: Vec<_> = shown.iter().map(|message| message.arrival).collect();
        self.touch(queue, &arrivals, now);
        peeked
    }

    fn peeked(&self, message: &Message, now: Millis) -> PeekedMessage {
        let keeps_leased = self.has(Bug::PeekKeepsLeased) && message.lease.is_some();
        PeekedMessage {
            id: message.sent.id.clone(),
            payload: message.sent.payload.clone(),
            headers: message.sent.headers.clone(),
            attempts: message.attempts,
            enqueued_at: to_time(message.enqueued_at),
            state: match self.state_of(message, now) {
                MessageState::Ready if keeps_leased => MessageState::Leased,
                state => state,
            },
            ready_at: to_time(message.ready_at),
        }
    }

    /// What a peek does to what it shows: nothing, unless a bug makes a lease of it.
    fn touch(&mut self, queue: &QueueName, arrivals: &[u64], now: Millis) {
        let bug = self.bug;
        let shown = self.queues.get_mut(queue).into_iter().flatten();
        for message in shown.filter(|message| arrivals.contains(&message.arrival)) {
            match bug {
                Some(Bug::PeekLeases) => message.ready_at = message.ready_at.max(now + 1000),
                Some(Bug::PeekCounts) => message.attempts += 1,
                _ => {}
            }
        }
    }

    pub(crate) fn dead_letters(&self, queue: &QueueName, page: &DeadLetterPage) -> Vec<DeadLetter> {
        let mut dead: Vec<_> = self
            .messages(queue)
            .iter()
            .filter_map(dead_letter)
            .collect();
        match self.bug {
            Some(Bug::DeadPageInOrderOfDeath) => dead.sort_by_key(|letter| letter.died_at),
            _ => dead.sort_by(|a, b| a.id.cmp(&b.id)),
        }
        if let Some(after) = page.after() {
            dead.retain(|letter| match self.bug {
                Some(Bug::DeadPageFromStart) => true,
                Some(Bug::DeadPageRepeatsLast) => letter.id >= *after,
                _ => letter.id > *after,
            });
        }
        match self.bug {
            Some(Bug::DeadPageNoneIsAll) if page.max() == 0 => {}
            Some(Bug::DeadPageFirstOnly) => dead.truncate(page.max().min(101)),
            Some(Bug::DeadPageTooLong) => dead.truncate(page.max() + 1),
            _ => dead.truncate(page.max()),
        }
        dead
    }

    pub(crate) fn names(&self) -> Vec<QueueName> {
        let listed = |messages: &[Message]| match self.bug {
            Some(Bug::ListMissesDeadOnly) => messages.iter().any(|message| message.death.is_none()),
            Some(Bug::ListKeepsDeleted) => true,
            _ => !messages.is_empty(),
        };
        let queues = self.queues.iter().filter(|(_, messages)| listed(messages));
        let mut names: Vec<_> = queues.map(|(name, _)| name.clone()).collect();
        match self.bug {
            Some(Bug::ListUnordered) => names.reverse(),
            Some(Bug::ListShowsDeadStores) => {
                let has_dead = |name: &&QueueName| self.messages(name).iter().any(is_dead);
                let store = |name: &QueueName| QueueName::new(&format!("{name}.dead"));
                names.extend(names.clone().iter().filter(has_dead).flat_map(store));
                names.sort();
            }
            _ => {}
        }
        names
    }

    /// Whether a queue that nobody has used may be asked about.
    pub(crate) fn expect_used(&self, queue: &QueueName, demanding: Bug) -> Result<()> {
        if self.has(demanding) && !self.queues.contains_key(queue) {
            return Err(refused("look", "namespace not found"));
        }
        Ok(())
    }
}

fn is_dead(message: &Message) -> bool {
    message.death.is_some()
}

fn dead_letter(message: &Message) -> Option<DeadLetter> {
    let death = message.death.as_ref()?;
    Some(DeadLetter {
        id: message.sent.id.clone(),
        payload: message.sent.payload.clone(),
        headers: message.sent.headers.clone(),
        attempts: message.attempts,
        enqueued_at: to_time(message.enqueued_at),
        died_at: to_time(death.at),
        reason: death.reason.clone(),
    })
}
