//! The contract for managing queues.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    DeadLetterPage, MessagePage, PageOptions, PeekedMessage, Purge, QueueBackend, QueueName,
    Redrive, Result,
};

/// Reads and cleans up queues, and manages dead letters.
///
/// Implement this trait for a backend that can do it. Applications use an [`Admin`](crate::Admin),
/// which checks their input and splits their batches.
///
/// It is separate because a backend for an existing broker may be able to implement
/// [`QueueBackend`] but none of these calls.
///
/// Every call can be repeated after an error.
#[async_trait]
pub trait QueueAdmin: QueueBackend {
    /// Returns up to `max` live messages without leasing them, in order of ready time.
    ///
    /// The handle guarantees: `max` is 1 to `max_batch`.
    ///
    /// # Errors
    /// The store did not answer or refused.
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>>;

    /// Lists live messages, one page at a time. The order is the backend's own, for example by id. It
    /// does not depend on what changes while a message is live, such as its state.
    ///
    /// A message that is live all the time is on exactly one page. It may be leased, extended,
    /// nacked or released between the calls, and other messages may come and go. A page may be
    /// shorter than requested. If it is the last one, it has no token. Listing changes nothing.
    ///
    /// The handle guarantees: the page has at least 1 and at most `max_batch` messages. The token
    /// may be any text.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the token cannot be one of this backend.
    /// Otherwise, the store did not answer or refused.
    async fn messages(&self, queue: &QueueName, page: &PageOptions) -> Result<MessagePage>;

    /// Removes messages permanently and returns how many. Receipts of removed messages are
    /// `Lost` from then on.
    ///
    /// It removes what was stored when the call began. It may leave messages that are enqueued
    /// meanwhile, and it ends also while producers go on sending.
    ///
    /// # Errors
    /// After an error, some of the messages may have been removed.
    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64>;

    /// Lists dead letters, one page at a time. Each has its place in the list while it is dead. The
    /// order is the backend's own, for example by id, or by time of death.
    ///
    /// A dead letter that is there all the time is on exactly one page, also if others come and go
    /// between the calls. A page may be shorter than requested. If it is the last one, it has no
    /// token.
    ///
    /// The handle guarantees: the page has at least 1 and at most `max_batch` dead letters. The token
    /// may be any text.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the token cannot be one of this backend.
    /// Otherwise, the store did not answer or refused.
    async fn dead_letters(&self, queue: &QueueName, page: &PageOptions) -> Result<DeadLetterPage>;

    /// Makes dead letters ready again, at once and with no attempts counted, and returns how
    /// many. Ids that are not dead letters are ignored.
    ///
    /// [`Redrive::All`] takes the dead letters in the order of their list. So none becomes ready
    /// earlier than one before it.
    ///
    /// The handle guarantees: at most `max_batch` ids.
    ///
    /// # Errors
    /// After an error, some of them may be ready. A repeat redrives the rest.
    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64>;

    /// Deletes a queue with all its messages. It is not an error if the queue does not exist.
    ///
    /// # Errors
    /// After an error, the queue may or may not have been deleted.
    async fn delete_queue(&self, queue: &QueueName) -> Result<()>;

    /// Lists the queues of this store in order of name. The list has every queue that contains
    /// messages; it may also have empty ones.
    ///
    /// # Errors
    /// The store did not answer or refused.
    async fn list_queues(&self) -> Result<Vec<QueueName>>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        impl<A: QueueAdmin + ?Sized> QueueAdmin for $pointer<A> {
            async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
                (**self).peek(queue, max).await
            }

            async fn messages(&self, queue: &QueueName, page: &PageOptions) -> Result<MessagePage> {
                (**self).messages(queue, page).await
            }

            async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
                (**self).purge(queue, what).await
            }

            async fn dead_letters(
                &self,
                queue: &QueueName,
                page: &PageOptions,
            ) -> Result<DeadLetterPage> {
                (**self).dead_letters(queue, page).await
            }

            async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
                (**self).redrive(queue, which).await
            }

            async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
                (**self).delete_queue(queue).await
            }

            async fn list_queues(&self) -> Result<Vec<QueueName>> {
                (**self).list_queues().await
            }
        }
    )*};
}

forward!(Arc, Box);
