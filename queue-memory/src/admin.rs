//! Administration of the queues (M1).

use queue_api::{
    DeadLetter, DeadLetterPage, PeekedMessage, Purge, QueueAdmin, QueueName, Redrive, Result,
    async_trait,
};

use crate::{MemoryBackend, queue::MemoryQueue};

#[async_trait]
impl QueueAdmin for MemoryBackend {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        Ok(self.with_queue(queue, |queue, now| queue.peek(max, now)))
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        Ok(self.with_queue(queue, |queue, _| queue.purge(what)))
    }

    async fn dead_letters(
        &self,
        queue: &QueueName,
        page: &DeadLetterPage,
    ) -> Result<Vec<DeadLetter>> {
        Ok(self.with_queue(queue, |queue, _| queue.dead_letters(page)))
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        Ok(self.with_queue(queue, |queue, now| queue.redrive(which, now)))
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        self.with_queue(queue, |queue, _| *queue = MemoryQueue::default());
        Ok(())
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        Ok(self.names())
    }
}
