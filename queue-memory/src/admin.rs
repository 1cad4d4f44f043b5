//! Looking after the queues in memory.

use queue_api::{
    DeadLetter, DeadLetterPage, MessageId, MessageState, PeekedMessage, Purge, QueueAdmin,
    QueueName, Redrive, Result, async_trait, millis,
};

use crate::{
    MemoryBackend,
    message::{Place, Position},
    state::State,
};

#[async_trait]
impl QueueAdmin for MemoryBackend {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        Ok(self.with_state(queue, |state, _| {
            state.promote(self.now());
            let ready = state.ready.iter().map(|entry| (entry, true));
            let pending = state.pending.iter().map(|entry| (entry, false));
            let in_order = ready.chain(pending).take(max);
            in_order
                .map(|((at, id), ready)| peeked(state, *at, id, ready))
                .collect()
        }))
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        Ok(self.with_state(queue, |state, _| {
            let doomed: Vec<MessageId> = match what {
                Purge::Live => state
                    .ready
                    .values()
                    .chain(state.pending.values())
                    .cloned()
                    .collect(),
                Purge::Dead => state.dead.iter().cloned().collect(),
            };
            doomed.iter().for_each(|id| state.remove(id));
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
            listed.filter_map(|id| dead_letter(state, id)).collect()
        }))
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        Ok(self.with_state(queue, |state, _| {
            let now = self.now();
            let ids: Vec<MessageId> = match which {
                Redrive::All => state.dead.iter().cloned().collect(),
                Redrive::Ids(ids) => ids.clone(),
            };
            ids.iter().filter(|id| state.redrive(id, now)).count() as u64
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

fn peeked(state: &State, position: Position, id: &MessageId, ready: bool) -> PeekedMessage {
    let message = &state.messages[id];
    PeekedMessage {
        id: id.clone(),
        payload: message.payload.clone(),
        headers: message.headers.clone(),
        attempts: message.attempts,
        enqueued_at: millis::to_time(message.enqueued_at),
        state: match (ready, message.token) {
            (true, _) => MessageState::Ready,
            (false, None) => MessageState::Delayed,
            (false, Some(_)) => MessageState::Leased,
        },
        ready_at: millis::to_time(position.0),
    }
}

fn dead_letter(state: &State, id: &MessageId) -> Option<DeadLetter> {
    let message = &state.messages[id];
    let Place::Dead { at, reason } = &message.place else {
        return None;
    };
    Some(DeadLetter {
        id: id.clone(),
        payload: message.payload.clone(),
        headers: message.headers.clone(),
        attempts: message.attempts,
        enqueued_at: millis::to_time(message.enqueued_at),
        died_at: millis::to_time(*at),
        reason: reason.clone(),
    })
}
