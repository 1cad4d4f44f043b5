//! Round trips that concurrent calls share.

mod batch_queue;
mod call;
mod caller;
mod lease;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::{
    batch_queue::{BatchQueues, Target},
    call::Call,
    caller::Caller,
};
use crate::{
    Delivery, EnqueueOutcome, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome, Limits,
    NewMessage, QueueBackend, QueueName, QueueStats, Receipt, Result,
};

/// A backend whose concurrent calls share round trips: for applications with many tasks that
/// each enqueue, lease or ack one message at a time.
///
/// While a call of one kind on one queue is under way, further calls of that kind gather; when it
/// has ended, they go out as one batch. There is no timer: a call that finds nothing under way
/// goes at once, with those that other tasks make at the same moment, and one that fills a batch
/// by itself waits for nobody. Every caller is answered as if it had made its call alone, one
/// caller after the other in the order in which they came.
///
/// Clones share their round trips, other instances do not: make one for each backend. Looking
/// after queues is not shared; [`QueueAdmin`](crate::QueueAdmin) is used on the backend itself.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::{Batching, LeaseOutcome, NewMessage, Purge, Queue, QueueAdmin};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// let backend = Arc::new(MemoryBackend::new());
/// let queue = Queue::new(Arc::new(Batching::new(backend.clone())), "greetings")?;
///
/// // Two inserts, in one call of the backend.
/// let (ada, bob) = (NewMessage::new("hello, Ada"), NewMessage::new("hello, Bob"));
/// tokio::try_join!(queue.enqueue(&ada), queue.enqueue(&bob))?;
///
/// let delivery = queue.lease().await?.expect("two are ready");
/// assert_eq!(queue.ack(&delivery.receipt).await?, LeaseOutcome::Applied);
/// assert_eq!(backend.purge(queue.name(), Purge::Live).await?, 1);
/// # Ok(())
/// # }
/// ```
///
/// # What a call may meet
///
/// - It may wait for one round trip before its own, so it may take twice as long as the
///   backend's operation timeout. A lease also waits for the acks that are under way, once, so
///   it may take three times as long: whoever is told of an ack is likely to lease next, and
///   tasks that go round together share each round trip.
/// - Batches are sent by tasks of the runtime whose call was the first of its kind. With clones in
///   several runtimes, each of them has to be driven: calls wait for one that is not.
/// - Leases are shared by those who ask for the same visibility timeout. Messages are dealt out
///   in the order in which the calls came.
/// - A call that is dropped is not made if it has not been sent; once it has, it runs to its end
///   for those who share it. Messages that were leased for a caller who is gone are given back,
///   and the attempt does not count.
/// - An error is the answer to everybody who shared the call, with one exception: where it may
///   have been caused by the input or the data of one of them, each part is tried again alone.
///   What such a part then finds stored or settled may be its own doing, so the answer to that is
///   the error.
///
/// # Panics
///
/// Calls are made by tasks that live as long as anything is under way, so a call outside of a
/// tokio runtime panics. If a runtime shuts down under the calls of others, these fail and may be
/// repeated.
#[derive(Clone)]
pub struct Batching {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Arc<dyn QueueBackend>,
    limits: Limits,
    enqueues: BatchQueues<Vec<NewMessage>>,
    leases: BatchQueues<LeaseOptions>,
    acks: BatchQueues<Vec<Receipt>>,
    changes: BatchQueues<Vec<LeaseChange>>,
}

impl Batching {
    /// Calls to `backend` that share round trips. Nothing runs until there is a call.
    pub fn new(backend: Arc<dyn QueueBackend>) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits: backend.limits(),
                backend,
                enqueues: BatchQueues::default(),
                leases: BatchQueues::default(),
                acks: BatchQueues::default(),
                changes: BatchQueues::default(),
            }),
        }
    }

    /// The backend behind it.
    pub fn inner(&self) -> &Arc<dyn QueueBackend> {
        &self.shared.backend
    }

    async fn call<C: Call>(&self, queue: &QueueName, call: C) -> Result<C::Answer> {
        let (answer, answered) = oneshot::channel();
        let target = Target::new(&self.shared, queue);
        target.join(Caller::new(call, answer));
        answered.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unavailable,
                C::OPERATION,
                "the runtime that made the call for several tasks has shut down",
            ))
        })
    }
}

impl fmt::Debug for Batching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Batching")
            .field(&self.shared.backend)
            .finish()
    }
}

#[async_trait]
impl QueueBackend for Batching {
    fn limits(&self) -> Limits {
        self.shared.limits.clone()
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        self.call(queue, messages.to_vec()).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let given = self.call(queue, options.clone()).await?;
        Ok(given.taken())
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        self.call(queue, receipts.to_vec()).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        self.call(queue, changes.to_vec()).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        self.shared.backend.wait(queue, at_most).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.shared.backend.stats(queue).await
    }
}
