//! Administration of the queues (M1).

use queue_api::{
    DeadLetterPage, Error, InvalidInput, MessageId, MessagePage, PageOptions, PageToken,
    PeekedMessage, Purge, QueueAdmin, QueueName, Redrive, Result, async_trait,
};

use crate::{MemoryBackend, queue::MemoryQueue};

#[async_trait]
impl QueueAdmin for MemoryBackend {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        Ok(self.with_queue(queue, |queue, now| queue.peek(max, now)))
    }

    /// A token is the last id of the page before.
    async fn messages(&self, queue: &QueueName, page: &PageOptions) -> Result<MessagePage> {
        let after = last_id("messages", page)?;
        Ok(self.with_queue(queue, |queue, now| {
            queue.messages(after.as_ref(), page.max(), now)
        }))
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        Ok(self.with_queue(queue, |queue, _| queue.purge(what)))
    }

    /// A token is the last id of the page before.
    async fn dead_letters(&self, queue: &QueueName, page: &PageOptions) -> Result<DeadLetterPage> {
        let after = last_id("dead letters", page)?;
        Ok(self.with_queue(queue, |queue, _| queue.dead_letters(after, page.max())))
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

fn last_id(operation: &'static str, page: &PageOptions) -> Result<Option<MessageId>> {
    let read = |token: &PageToken| {
        MessageId::new(token.as_str()).map_err(|_| {
            let token = format!("{:?}", token.as_str());
            let wrong = InvalidInput::new("page token", token, "one that this backend returned");
            Error::invalid_value(operation, wrong)
        })
    };
    page.token().map(read).transpose()
}
