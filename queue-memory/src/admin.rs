//! Looking after the queues in memory.

use queue_api::{
    DeadLetter, DeadLetterPage, MessageId, MessageState, PeekedMessage, Purge, QueueAdmin,
    QueueName, Redrive, Result, async_trait,
    millis::{self, Millis},
};

use crate::{
    MemoryBackend,
    message::{Message, Place, Set},
    messages::Slot,
};

#[async_trait]
impl QueueAdmin for MemoryBackend {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        Ok(self.with_state(queue, |state, _| {
            state.advance(self.now());
            let in_order = state.live().take(max);
            in_order
                .map(|(slot, at)| peeked(&state.messages[slot], at))
                .collect()
        }))
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        Ok(self.with_state(queue, |state, _| {
            let doomed: Vec<Slot> = match what {
                Purge::Live => state.live().map(|(slot, _)| slot).collect(),
                Purge::Dead => state.dead.values().copied().collect(),
            };
            doomed.iter().for_each(|slot| state.remove(*slot));
            state.compact();
            doomed.len() as u64
        }))
    }

    async fn dead_letters(
        &self,
        queue: &QueueName,
        page: &DeadLetterPage,
    ) -> Result<Vec<DeadLetter>> {
        use std::ops::Bound::{Excluded, Unbounded};
        Ok(self.with_state(queue, |state, _| {
            let after = page.after().map_or(Unbounded, Excluded);
            let listed = state
                .dead
                .range::<MessageId, _>((after, Unbounded))
                .take(page.max());
            listed
                .filter_map(|(_, slot)| dead_letter(&state.messages[*slot]))
                .collect()
        }))
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        Ok(self.with_state(queue, |state, _| {
            state.advance(self.now());
            let ids: Vec<MessageId> = match which {
                Redrive::All => state.dead.keys().cloned().collect(),
                Redrive::Ids(ids) => ids.clone(),
            };
            ids.iter().filter(|id| state.redrive(id)).count() as u64
        }))
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        self.forget(queue);
        Ok(())
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        Ok(self.names())
    }
}

fn peeked(message: &Message, ready_at: Millis) -> PeekedMessage {
    PeekedMessage {
        id: message.id.clone(),
        payload: message.payload.clone(),
        headers: message.headers.clone(),
        attempts: message.attempts,
        enqueued_at: millis::to_time(message.enqueued_at),
        state: match (&message.place, message.token) {
            (Place::InLine(Set::Ready, _), _) => MessageState::Ready,
            (_, None) => MessageState::Delayed,
            (_, Some(_)) => MessageState::Leased,
        },
        ready_at: millis::to_time(ready_at),
    }
}

fn dead_letter(message: &Message) -> Option<DeadLetter> {
    let Place::Dead(death) = &message.place else {
        return None;
    };
    Some(DeadLetter {
        id: message.id.clone(),
        payload: message.payload.clone(),
        headers: message.headers.clone(),
        attempts: message.attempts,
        enqueued_at: millis::to_time(message.enqueued_at),
        died_at: millis::to_time(death.at),
        reason: death.reason.clone(),
    })
}
