//! Batching: how many calls reach the backend, and what each caller gets.

mod dropped;
mod errors;
mod rounds;
mod sharing;

use std::{num::NonZeroUsize, sync::Arc};

use queue_api::{
    Batching, EnqueueOutcome, Error, Limits, MessageId, NewMessage, Queue, QueueBackend, QueueName,
    Result, async_trait,
};
use queue_memory::MemoryBackend;
use queue_test_support::{Delegate, Delegated, Faulty};

/// An id that the backend of these tests refuses as invalid.
const REFUSED: &str = "refused";

struct Fixture {
    /// The queue with batching.
    queue: Queue,
    /// Counts the calls of `queue`, and injects faults.
    faulty: Arc<Delegated<Faulty>>,
    /// The same queue without batching and faults.
    direct: Queue,
}

impl Fixture {
    fn new() -> Self {
        Self::with_max_batch(Limits::STANDARD.max_batch.get())
    }

    fn with_max_batch(max_batch: usize) -> Self {
        let inner = MemoryBackend::new();
        let max_batch = NonZeroUsize::new(max_batch).expect("not zero");
        let inner = Arc::new(Delegated(Limited { inner, max_batch }));
        let faulty = Faulty::new(inner.clone());
        let queue = |backend| Queue::new(backend, "work").expect("a valid name");
        Self {
            queue: queue(Arc::new(Batching::new(faulty.clone()))),
            faulty,
            direct: queue(inner),
        }
    }

    /// Stores messages with the ids `m000`, `m001`, ….
    async fn store(&self, messages: usize) {
        let messages: Vec<_> = (0..messages).map(|n| msg(&format!("m{n:03}"))).collect();
        self.direct.enqueue_batch(&messages).await.expect("stored");
    }
}

#[derive(Debug)]
struct Limited {
    inner: MemoryBackend,
    max_batch: NonZeroUsize,
}

#[async_trait]
impl Delegate for Limited {
    type Inner = MemoryBackend;

    fn inner(&self) -> &MemoryBackend {
        &self.inner
    }

    fn limits(&self) -> Limits {
        Limits::STANDARD.with_max_batch(self.max_batch)
    }

    async fn enqueue(&self, queue: &QueueName, all: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        if all.iter().any(|message| message.id.as_str() == REFUSED) {
            return Err(Error::invalid("enqueue", "the message is refused"));
        }
        self.inner.enqueue(queue, all).await
    }
}

/// A message with its id as payload.
fn msg(id: &str) -> NewMessage {
    NewMessage::new(id.to_owned()).with_id(MessageId::new(id).expect("a valid id"))
}

/// Lets every other task run until it waits: on one thread, each task is polled once between two
/// polls of this one.
async fn others_run() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
