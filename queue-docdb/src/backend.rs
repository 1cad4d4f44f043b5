//! The backend: each call of the contract opens the queue's collection and passes on.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use mongodb::Database;
use queue_api::{
    Batching, DeadLetterPage, Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome,
    Limits, MessagePage, NewMessage, PageOptions, PeekedMessage, Purge, QueueAdmin, QueueBackend,
    QueueName, QueueStats, Receipt, Redrive, Result, async_trait,
};

use crate::{
    calls::peek,
    connect::{amazon::Engine, runtime::ConnectRuntime},
    names::Prefix,
    state::queues::Queues,
    store::{
        clock::Time,
        collection::{Access, QueueCollection},
        error::{StoreError, during},
        retry::Deadline,
    },
    watch::Watch,
};

/// Queues in a database of Amazon DocumentDB or MongoDB.
///
/// A clone is cheap and uses the same connections. Dropping the last one closes them.
///
/// ```no_run
/// use std::sync::Arc;
/// use queue_api::{NewMessage, Queue};
/// use queue_docdb::DocDbBackend;
///
/// # async fn example() -> queue_api::Result<()> {
/// let backend = DocDbBackend::builder("mongodb://localhost:27017")
///     .database("shop")
///     .connect()
///     .await?;
/// let queue = Queue::new(Arc::new(backend), "mail")?;
/// queue.enqueue(&NewMessage::new("welcome, Ada")).await?;
/// assert_eq!(queue.stats().await?.ready, 1);
/// # Ok(())
/// # }
/// ```
///
/// Concurrent calls of one instance and its clones share round trips, as with
/// [`Batching`](queue_api::Batching#what-to-expect).
#[derive(Clone)]
pub struct DocDbBackend {
    pub(crate) direct: Arc<Direct>,
    batching: Batching,
}

/// How many batches of the largest size go out as one. Measured with four callers: claims that go
/// out together are twice as fast as those that compete.
const COMBINED_BATCHES: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// The backend without batching.
pub(crate) struct Direct {
    pub(crate) database: Database,
    pub(crate) prefix: Prefix,
    pub(crate) timeout: Duration,
    pub(crate) time: Arc<Time>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) entry_size: usize,
    pub(crate) engine: Engine,
    pub(crate) watch: Option<Arc<Watch>>,
    pub(crate) runtime: ConnectRuntime,
}

impl Drop for Direct {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.close();
        }
    }
}

impl DocDbBackend {
    pub(crate) fn new(direct: Direct) -> Self {
        let direct = Arc::new(direct);
        let batching = Batching::new(direct.clone());
        Self { direct, batching }
    }
}

impl Direct {
    /// The deadline of a call, if the runtime that connected has not ended.
    pub(crate) fn deadline(&self) -> Result<Deadline, StoreError> {
        let is_doubtful = self.runtime.is_doubtful()?;
        Ok(Deadline::after(self.timeout).in_doubtful_runtime(is_doubtful))
    }

    /// The queue's collection. The call itself checks what it holds.
    pub(crate) fn collection(&self, queue: &QueueName) -> Result<QueueCollection, StoreError> {
        let deadline = self.deadline()?;
        let name = self.prefix.collection(queue)?;
        Ok(QueueCollection {
            messages: self.database.collection(&name),
            database: self.database.clone(),
            deadline,
            time: Arc::clone(&self.time),
            state: self.queues.state(queue),
            entry_size: self.entry_size,
            engine: self.engine,
            access: Access::Write,
            watch: self.watch.clone(),
        })
    }

    /// The same, for a call that finds messages by an index and changes nothing.
    async fn open_to_read(&self, queue: &QueueName) -> Result<QueueCollection, StoreError> {
        let queue = self.collection(queue)?;
        let serve = queue.indexes_serve().await?;
        let access = if serve { Access::Read } else { Access::Scan };
        Ok(QueueCollection { access, ..queue })
    }

    async fn collection_names(&self) -> Result<Vec<String>, StoreError> {
        let mut retries = self.deadline()?.retries();
        loop {
            let names = self.database.list_collection_names();
            match retries.run(names).await {
                Ok(names) => return Ok(names),
                Err(error) => retries.after(error).await?,
            }
        }
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's `Debug` of a database shows the user name.
        f.debug_struct("DocDbBackend")
            .field("database", &self.database.name())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl QueueBackend for Direct {
    fn limits(&self) -> Limits {
        let mut limits = Limits::STANDARD;
        limits.max_batch = limits.max_batch.saturating_mul(COMBINED_BATCHES);
        limits
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        let call = async { self.collection(queue)?.enqueue(messages).await };
        during("enqueue", call).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let call = async { self.collection(queue)?.lease(options).await };
        during("lease", call).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let call = async { self.collection(queue)?.ack(receipts).await };
        during("ack", call).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        let call = async { self.collection(queue)?.change(changes).await };
        during("change", call).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let call = async { self.open_to_read(queue).await?.wait(at_most).await };
        during("wait", call).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let call = async { self.open_to_read(queue).await?.stats().await };
        during("stats", call).await
    }
}

impl fmt::Debug for DocDbBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.direct.fmt(f)
    }
}

#[async_trait]
impl QueueBackend for DocDbBackend {
    fn limits(&self) -> Limits {
        // A document may have 16 MiB, so these leave plenty of room.
        Limits::STANDARD
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        self.batching.enqueue(queue, messages).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        self.batching.lease(queue, options).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        self.batching.ack(queue, receipts).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        self.batching.change(queue, changes).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        self.direct.wait(queue, at_most).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.direct.stats(queue).await
    }
}

#[async_trait]
impl QueueAdmin for DocDbBackend {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        let call = async { self.direct.open_to_read(queue).await?.peek(max).await };
        during("peek", call).await
    }

    async fn messages(&self, queue: &QueueName, page: &PageOptions) -> Result<MessagePage> {
        let from = peek::start(page)?;
        let call = async {
            let queue = self.direct.open_to_read(queue).await?;
            queue.live_messages(from, page.max()).await
        };
        during("messages", call).await
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        let call = async { self.direct.collection(queue)?.purge(what).await };
        during("purge", call).await
    }

    async fn dead_letters(&self, queue: &QueueName, page: &PageOptions) -> Result<DeadLetterPage> {
        let call = async {
            let queue = self.direct.open_to_read(queue).await?;
            queue.dead_letters(page).await
        };
        during("dead letters", call).await
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        let call = async { self.direct.collection(queue)?.redrive(which).await };
        during("redrive", call).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        let call = async { self.direct.collection(queue)?.delete_queue().await };
        during("delete queue", call).await
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        let direct = &self.direct;
        let call = async {
            let names = direct.collection_names().await?;
            let mut queues = Vec::new();
            for queue in names.iter().filter_map(|name| direct.prefix.queue(name)) {
                if direct.collection(&queue)?.is_queue().await? {
                    queues.push(queue);
                }
            }
            queues.sort();
            Ok(queues)
        };
        during("list queues", call).await
    }
}
