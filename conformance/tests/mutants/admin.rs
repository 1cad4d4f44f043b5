//! Looking after queues: what removes and what revives.

use queue_api::{MessageId, Purge, QueueName, Redrive};

use crate::{
    bug::Bug,
    message::{Message, Millis},
    state::State,
};

impl State {
    pub(crate) fn purge(&mut self, queue: &QueueName, what: Purge, now: Millis) -> u64 {
        let bug = self.bug;
        let purged = |message: &Message| {
            let dead = message.death.is_some();
            match (bug, what) {
                (Some(Bug::PurgeSparesLeased), Purge::Live) => !dead && message.lease.is_none(),
                (Some(Bug::PurgeSparesDelayed), Purge::Live) => {
                    !dead && (message.lease.is_some() || message.ready_at <= now)
                }
                (Some(Bug::PurgeLiveTakesDead), Purge::Live) => true,
                (Some(Bug::PurgeDeadTakesLive), Purge::Dead) => true,
                (_, Purge::Live) => !dead,
                (_, Purge::Dead) => dead,
            }
        };
        let every = self.has(Bug::PurgeTakesEveryQueue);
        let mut removed = Vec::new();
        for (_, messages) in self
            .queues
            .iter_mut()
            .filter(|(name, _)| every || *name == queue)
        {
            removed.extend(messages.extract_if(.., |message| purged(message)));
        }
        let count = removed.len() as u64;
        let leased = removed
            .into_iter()
            .filter_map(|m| Some((m.lease?.receipt, m.sent.id)));
        self.memory.purged.extend(leased);
        if bug == Some(Bug::PurgeCountsNothing) {
            0
        } else {
            count
        }
    }

    pub(crate) fn redrive(&mut self, queue: &QueueName, which: &Redrive, now: Millis) -> u64 {
        let bug = self.bug;
        let named = |id: &MessageId| match which {
            Redrive::All => true,
            Redrive::Ids(ids) if ids.is_empty() => bug == Some(Bug::RedriveNoneIsAll),
            Redrive::Ids(ids) => ids.contains(id) || bug == Some(Bug::RedriveTakesAll),
        };
        let takes_live = bug == Some(Bug::RedriveTakesLive);
        let mut copies = Vec::new();
        let mut redriven = 0;
        for message in self.messages_mut(queue) {
            if !named(&message.sent.id) || message.death.is_none() && !takes_live {
                continue;
            }
            if bug == Some(Bug::RedriveCopies) {
                copies.push(message.clone());
            }
            if redriven == 100 && bug == Some(Bug::RedriveAtMost100) {
                break;
            }
            redriven += 1;
            message.scars.deliveries = 0;
            message.death = None;
            message.lease = None;
            match bug {
                Some(Bug::RedriveKeepsAttempts) => {}
                _ => message.attempts = 0,
            }
            match bug {
                Some(Bug::RedriveKeepsReadyTime) => {}
                _ => message.ready_at = now,
            }
            if bug == Some(Bug::RedriveLosesHeaders) {
                message.sent.headers.clear();
            }
        }
        for mut copy in copies {
            copy.arrival = self.number();
            self.messages_mut(queue).push(copy);
        }
        match (bug, which) {
            (Some(Bug::RedriveCountsNamed), Redrive::Ids(ids)) => ids.len() as u64,
            _ => redriven,
        }
    }

    pub(crate) fn delete(&mut self, queue: &QueueName) {
        match self.bug {
            Some(Bug::DeleteSparesDead) => {
                self.messages_mut(queue)
                    .retain(|message| message.death.is_some());
            }
            Some(Bug::DeleteTakesEveryQueue) => self.queues.clear(),
            Some(Bug::ListKeepsDeleted) => self.messages_mut(queue).clear(),
            Some(Bug::DeletedForGood) => {
                self.memory.deleted.insert(queue.clone());
                self.queues.remove(queue);
            }
            _ => drop(self.queues.remove(queue)),
        }
    }
}
