//! Looking after a queue.

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Headers, MessageId, QueueName, Result};

/// Looking into queues, cleaning them up, and dealing with dead letters.
///
/// A trait of its own, because a backend over a foreign broker may be able to keep the
/// contract of [`QueueBackend`](crate::QueueBackend) without any of this.
///
/// Each call is safe to repeat after an error.
#[async_trait]
pub trait QueueAdmin: fmt::Debug + Send + Sync + 'static {
    /// Shows up to `max` live messages without leasing them, in order of ready time: first
    /// those that are ready, then those that will be.
    ///
    /// # Errors
    /// The store could not be asked.
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>>;

    /// Removes messages for good and says how many. Receipts of removed messages are `Lost`
    /// from then on.
    ///
    /// # Errors
    /// After an error some of them may have been removed.
    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64>;

    /// Lists dead letters in order of id.
    ///
    /// # Errors
    /// The store could not be asked.
    async fn dead_letters(
        &self,
        queue: &QueueName,
        page: &DeadLetterPage,
    ) -> Result<Vec<DeadLetter>>;

    /// Makes dead letters ready again, at once and with no attempt counted, and says how
    /// many. Ids that are not those of dead letters are passed over.
    ///
    /// # Errors
    /// After an error some of them may be ready; a repeat redrives the rest.
    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64>;

    /// Removes a queue with all that it holds. One that does not exist is no error.
    ///
    /// # Errors
    /// After an error the queue may be gone or not.
    async fn delete_queue(&self, queue: &QueueName) -> Result<()>;

    /// Names the queues of this store in order: all that hold messages, and perhaps some that
    /// are empty.
    ///
    /// # Errors
    /// The store could not be asked.
    async fn list_queues(&self) -> Result<Vec<QueueName>>;
}

/// A live message, seen without being leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeekedMessage {
    /// The message's id.
    pub id: MessageId,
    /// The bytes that were enqueued.
    pub payload: Bytes,
    /// The headers that were enqueued.
    pub headers: Headers,
    /// How often it has been delivered.
    pub attempts: u32,
    /// When it was enqueued.
    pub enqueued_at: SystemTime,
    /// Its state by the backend's clock.
    pub state: MessageState,
    /// When it became or becomes ready unless something happens to it: the end of its delay
    /// or of its lease.
    pub ready_at: SystemTime,
}

/// The state of a live message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageState {
    /// It may be leased.
    Ready,
    /// Its delay has not passed.
    Delayed,
    /// Somebody's lease is running.
    Leased,
}

/// What a purge removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purge {
    /// Every live message: ready, delayed and leased. Dead letters stay.
    Live,
    /// Every dead letter. Live messages stay.
    Dead,
}

/// A message that is not delivered any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message's id.
    pub id: MessageId,
    /// The bytes that were enqueued.
    pub payload: Bytes,
    /// The headers that were enqueued.
    pub headers: Headers,
    /// How often it was delivered.
    pub attempts: u32,
    /// When it was enqueued.
    pub enqueued_at: SystemTime,
    /// When it became a dead letter.
    pub died_at: SystemTime,
    /// Why.
    pub reason: DeadReason,
}

/// Why a message is dead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// It was delivered as often as its `max_attempts` says, and nobody settled it.
    AttemptsExhausted,
    /// A consumer dead-lettered it, for the reason given.
    Rejected(String),
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AttemptsExhausted => f.write_str("attempts exhausted"),
            Self::Rejected(reason) => f.write_str(reason),
        }
    }
}

/// Which dead letters to list.
///
/// ```
/// use queue_api::DeadLetterPage;
///
/// let page = DeadLetterPage::new(50);
/// assert!(page.after().is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterPage {
    max: usize,
    after: Option<MessageId>,
}

impl DeadLetterPage {
    /// The first `max` dead letters.
    pub fn new(max: usize) -> Self {
        Self { max, after: None }
    }

    /// Those behind `id`, the last one of the page before.
    #[must_use]
    pub fn starting_after(mut self, id: MessageId) -> Self {
        self.after = Some(id);
        self
    }

    /// How many at most.
    pub fn max(&self) -> usize {
        self.max
    }

    /// The id behind which the page begins.
    pub fn after(&self) -> Option<&MessageId> {
        self.after.as_ref()
    }
}

/// Which dead letters to redrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redrive {
    /// Every dead letter of the queue.
    All,
    /// Those with these ids.
    Ids(Vec<MessageId>),
}
