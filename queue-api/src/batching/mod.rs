//! Batching: concurrent calls share round trips.

mod batch_queue;
mod caller;
mod lease;
mod operation;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::{
    batch_queue::BatchQueues,
    caller::Caller,
    lease::Lease,
    operation::{Ack, Change, Enqueue, Operation},
};
use crate::{
    Delivery, EnqueueOutcome, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome, Limits,
    NewMessage, QueueBackend, QueueName, QueueStats, Receipt, Result,
};

/// A backend whose concurrent calls share round trips. Use it if many tasks each enqueue, lease or
/// ack one message at a time.
///
/// While a call is in flight, further calls of the same kind on the same queue wait. When it
/// completes, they go out as one batch. There is no timer: a call that finds nothing in flight goes
/// at once, together with concurrent calls of other tasks. A call that fills a batch does not wait.
/// Each caller gets the same answer as if it had called alone, in the order of the calls.
///
/// Clones share round trips; separate instances do not. Make one instance for each backend.
/// [`QueueAdmin`](crate::QueueAdmin) calls are not batched: make them on the backend itself.
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
/// // Both messages go in one call of the backend.
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
/// # What to expect
///
/// - **Latency**: a call may wait for one round trip before its own, so it may take twice the
///   backend's operation timeout. A lease also waits once for acks in flight, so it may take three
///   times that, and up to a millisecond for the callers of these acks. This lets tasks that ack and
///   then lease share both round trips.
/// - **Calls that hang**: a batch waits for at most 10 seconds for the one before it. If that one takes
///   longer, it goes on beside the next ones. It is given up after a minute if its callers are dropped.
/// - **Runtimes**: the runtime that makes the first call of a kind sends the batches of that kind.
///   If clones live in several runtimes, keep all of them running.
/// - **Leases**: calls with the same visibility timeout share a batch. Messages go to the earliest
///   calls first.
/// - **Dropped calls**: a call that was not sent yet is not made. One that was sent completes for
///   the other callers. Messages that were leased for a dropped call are released, and the attempt
///   does not count.
/// - **Errors**: every caller of a batch gets the error. If one caller's input or data may have
///   caused it, the batch is repeated call by call. If such a repeat says `Duplicate` or `Lost`, the
///   failed batch may be the reason, so the caller gets the error. If that was another caller's
///   invalid input, the error is [`Unavailable`](ErrorKind::Unavailable) instead: repeat the call.
///
/// # Panics
///
/// A call outside a tokio runtime, or in one without timers, panics, because background tasks send
/// the batches. If a runtime
/// shuts down, calls that wait for its tasks fail and may be repeated.
#[derive(Clone)]
pub struct Batching {
    backend: Arc<dyn QueueBackend>,
    enqueues: Arc<BatchQueues<Enqueue>>,
    leases: Arc<BatchQueues<Lease>>,
    acks: Arc<BatchQueues<Ack>>,
    changes: Arc<BatchQueues<Change>>,
}

impl Batching {
    /// Batches calls to `backend`. This starts no task; the first call does.
    pub fn new(backend: Arc<dyn QueueBackend>) -> Self {
        let acks = BatchQueues::new(Ack, &backend);
        let changes = BatchQueues::new(Change, &backend);
        let lease = Lease {
            acks: acks.clone(),
            changes: changes.clone(),
        };
        Self {
            enqueues: BatchQueues::new(Enqueue, &backend),
            leases: BatchQueues::new(lease, &backend),
            acks,
            changes,
            backend,
        }
    }

    /// The backend that makes the calls.
    pub fn inner(&self) -> &Arc<dyn QueueBackend> {
        &self.backend
    }
}

async fn call<O: Operation>(
    queues: &Arc<BatchQueues<O>>,
    queue: &QueueName,
    request: O::Request,
) -> Result<O::Answer> {
    let (sender, answer) = oneshot::channel();
    queues.submit(queue, Caller::new(request, sender));
    answer.await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Unavailable,
            O::NAME,
            "the tokio runtime that sends the batch has shut down",
        ))
    })
}

impl fmt::Debug for Batching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Batching").field(&self.backend).finish()
    }
}

#[async_trait]
impl QueueBackend for Batching {
    fn limits(&self) -> Limits {
        self.backend.limits()
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        call(&self.enqueues, queue, messages.to_vec()).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let answer = call(&self.leases, queue, options.clone()).await?;
        Ok(answer.take())
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        call(&self.acks, queue, receipts.to_vec()).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        call(&self.changes, queue, changes.to_vec()).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        self.backend.wait(queue, at_most).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.backend.stats(queue).await
    }
}
