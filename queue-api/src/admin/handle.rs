//! The handle with which applications manage queues.

use std::sync::Arc;

use crate::{
    DeadLetterPage, DeadLetterStream, Error, InvalidInput, Limits, MessagePage, MessageStream,
    PageOptions, PeekedMessage, Purge, QueueAdmin, QueueName, QueueStats, Redrive, Result, metrics,
};

/// Manages the queues of a backend: reads them, cleans them up, and redrives dead letters.
///
/// The handle checks all input and splits batches to the backend's limits. A clone is cheap. Every
/// call can be repeated after an error.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::{Admin, NewMessage, PageOptions, Queue, Redrive};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// let backend = Arc::new(MemoryBackend::new());
/// let queue = Queue::new(backend.clone(), "mail")?;
/// queue.enqueue(&NewMessage::new("to nobody")).await?;
/// let delivery = queue.lease().await?.expect("one is ready");
/// assert!(queue.dead_letter(&delivery.receipt, "no recipient").await?.is_applied());
///
/// let admin = Admin::new(backend);
/// let page = admin.dead_letters("mail", &PageOptions::new(50)).await?;
/// assert_eq!(page[0].reason.to_string(), "no recipient");
/// assert_eq!(page.next, None);
///
/// let again = Redrive::Ids(vec![page[0].id.clone()]);
/// assert_eq!(admin.redrive("mail", &again).await?, 1);
/// assert_eq!(admin.stats("mail").await?.ready, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Admin {
    backend: Arc<dyn QueueAdmin>,
    limits: Limits,
}

impl Admin {
    /// A handle for all queues of `backend`. This sends nothing.
    pub fn new(backend: Arc<dyn QueueAdmin>) -> Self {
        let limits = backend.limits();
        Self { backend, limits }
    }

    /// The backend of these queues.
    pub fn backend(&self) -> &Arc<dyn QueueAdmin> {
        &self.backend
    }

    /// Returns up to `max` live messages without leasing them, in order of ready time.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid, or `max` is not
    /// between 1 and [`Limits::max_batch`]. Otherwise, the store did not answer or refused.
    pub async fn peek(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
        max: usize,
    ) -> Result<Vec<PeekedMessage>> {
        let queue = queue.try_into().map_err(Into::into)?;
        self.check_max("peek", max)?;
        self.backend.peek(&queue, max).await
    }

    /// One page of the list of live messages, in the backend's order. A page may be shorter than
    /// requested and still have a [`next`](MessagePage::next) one.
    ///
    /// A message that is live all the time is on exactly one page, also if it is leased or nacked
    /// between the calls. Dead letters are in a list of [their own](Self::dead_letters).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid, the page does not
    /// have 1 to [`Limits::max_batch`] messages, or the token is not one of this backend.
    /// Otherwise, the store did not answer or refused.
    pub async fn messages(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
        page: &PageOptions,
    ) -> Result<MessagePage> {
        let queue = queue.try_into().map_err(Into::into)?;
        self.check_max("messages", page.max())?;
        self.backend.messages(&queue, page).await
    }

    /// All live messages, in the order of their list, as a stream. It holds one page in memory.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use queue_api::{Admin, MessageState, NewMessage, Queue};
    /// # use queue_memory::MemoryBackend;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> queue_api::Result<()> {
    /// # let backend = Arc::new(MemoryBackend::new());
    /// let queue = Queue::new(backend.clone(), "mail")?;
    /// queue.enqueue(&NewMessage::new("welcome, Ada").with_max_attempts(3)).await?;
    ///
    /// let mut messages = Admin::new(backend).all_messages("mail")?;
    /// while let Some(message) = messages.next().await {
    ///     let message = message?;
    ///     assert_eq!(message.payload, "welcome, Ada");
    ///     assert_eq!((message.state, message.max_attempts), (MessageState::Ready, 3));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid.
    pub fn all_messages(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
    ) -> Result<MessageStream> {
        let queue = queue.try_into().map_err(Into::into)?;
        let backend = self.backend.clone();
        Ok(MessageStream::messages(backend, queue, &self.limits))
    }

    /// Removes messages permanently and returns how many. Receipts of removed messages are
    /// [`Lost`](crate::LeaseOutcome::Lost) from then on.
    ///
    /// It removes what was stored when the call began. It may leave messages that are enqueued
    /// meanwhile.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid. After any other
    /// error, some of the messages may have been removed.
    pub async fn purge(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
        what: Purge,
    ) -> Result<u64> {
        let queue = queue.try_into().map_err(Into::into)?;
        self.backend.purge(&queue, what).await
    }

    /// One page of the list of dead letters, in the backend's order. A page may be shorter than
    /// requested and still have a [`next`](DeadLetterPage::next) one.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid, the page does not
    /// have 1 to [`Limits::max_batch`] dead letters, or the token is not one of this backend.
    /// Otherwise, the store did not answer or refused.
    pub async fn dead_letters(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
        page: &PageOptions,
    ) -> Result<DeadLetterPage> {
        let queue = queue.try_into().map_err(Into::into)?;
        self.check_max("dead letters", page.max())?;
        self.backend.dead_letters(&queue, page).await
    }

    /// All dead letters, in the order of their list, as a stream. It holds one page in memory.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid.
    pub fn all_dead_letters(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
    ) -> Result<DeadLetterStream> {
        let queue = queue.try_into().map_err(Into::into)?;
        let backend = self.backend.clone();
        Ok(DeadLetterStream::dead_letters(backend, queue, &self.limits))
    }

    /// Makes dead letters ready again, at once and with no attempts counted, and returns how many.
    /// Ids that are not dead letters are ignored.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid. After any other
    /// error, some of them may be ready. A repeat redrives the rest.
    pub async fn redrive(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
        which: &Redrive,
    ) -> Result<u64> {
        let queue = queue.try_into().map_err(Into::into)?;
        let Redrive::Ids(ids) = which else {
            return self.backend.redrive(&queue, which).await;
        };
        let mut redriven = 0;
        for chunk in ids.chunks(self.limits.max_batch.get()) {
            let chunk = Redrive::Ids(chunk.to_vec());
            redriven += self.backend.redrive(&queue, &chunk).await?;
        }
        Ok(redriven)
    }

    /// Deletes a queue with all its messages. It is not an error if the queue does not exist.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid. After any other
    /// error, the queue may or may not have been deleted.
    pub async fn delete_queue(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
    ) -> Result<()> {
        let queue = queue.try_into().map_err(Into::into)?;
        self.backend.delete_queue(&queue).await
    }

    /// Lists the queues in order of name. The list has every queue that contains messages; it may
    /// also have empty ones.
    ///
    /// # Errors
    /// The store did not answer or refused.
    pub async fn list_queues(&self) -> Result<Vec<QueueName>> {
        self.backend.list_queues().await
    }

    /// Counts the messages by state, and sets the gauges of [`metrics`] to the result.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name is not valid. Otherwise, the
    /// store did not answer or refused.
    pub async fn stats(
        &self,
        queue: impl TryInto<QueueName, Error: Into<Error>>,
    ) -> Result<QueueStats> {
        let queue = queue.try_into().map_err(Into::into)?;
        let stats = self.backend.stats(&queue).await?;
        metrics::depth(&queue, &stats);
        Ok(stats)
    }

    fn check_max(&self, operation: &'static str, max: usize) -> Result<()> {
        let most = self.limits.max_batch;
        if (1..=most.get()).contains(&max) {
            return Ok(());
        }
        let wrong = InvalidInput::new("max", max.to_string(), format!("1 to {most}"));
        Err(Error::invalid_value(operation, wrong))
    }
}
