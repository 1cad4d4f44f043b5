//! Enqueue and ack in the application's own transaction.

use crate::{
    EnqueueOutcome, LeaseOutcome, NewMessage, Queue, QueueName, Receipt, Result, async_trait,
    queue::{append, counted},
};

/// A transaction of a backend that has them.
///
/// Implement this for the type that your backend gives to the application during a transaction.
/// Applications pass it to [`Queue::enqueue_in`] and [`Queue::ack_in`].
///
/// The calls are those of [`QueueBackend`](crate::QueueBackend), with the same guarantees of the
/// handle. They take effect when the application commits.
///
/// # Errors
/// All calls: [`InvalidInput`](crate::ErrorKind::InvalidInput) if no transaction is under way, before
/// anything is sent.
#[async_trait]
pub trait QueueTransaction: Send {
    /// As [`QueueBackend::enqueue`](crate::QueueBackend::enqueue).
    async fn enqueue(
        &mut self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>>;

    /// As [`QueueBackend::ack`](crate::QueueBackend::ack).
    async fn ack(&mut self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>>;
}

/// Calls in a transaction.
///
/// They go to the backend of the transaction, under the name of this handle. The handle checks
/// and completes messages, carries the trace context, and counts outcomes as in its other calls. It
/// counts when a call returns: an abort takes nothing back.
impl Queue {
    /// Stores messages when `transaction` commits. Returns for each, in order, whether it was new.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if any message exceeds the limits or no
    /// transaction is under way; nothing is sent. After any other error, abort the transaction.
    ///
    /// This queue must be a handle on the transaction's backend. That is not checked: otherwise the
    /// messages go to the queue of the same name on the transaction's backend.
    pub async fn enqueue_in(
        &self,
        transaction: &mut dyn QueueTransaction,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        self.send(Some(transaction), messages).await
    }

    /// Removes messages when `transaction` commits. Returns one outcome for each receipt, in order.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if no transaction is under way; nothing is
    /// sent. After any other error, abort the transaction.
    ///
    /// This queue must be a handle on the transaction's backend. That is not checked: otherwise the
    /// receipts are used on the queue of the same name on the transaction's backend.
    pub async fn ack_in(
        &self,
        transaction: &mut dyn QueueTransaction,
        receipts: &[Receipt],
    ) -> Result<Vec<LeaseOutcome>> {
        let mut outcomes = Vec::new();
        for chunk in receipts.chunks(self.limits().max_batch.get()) {
            let answer = transaction.ack(self.name(), chunk).await?;
            let answer = counted("ack", chunk.len(), answer)?;
            self.counters.acked(&answer);
            append(&mut outcomes, answer);
        }
        Ok(outcomes)
    }
}
