//! A backend that counts its calls, holds them back, and fails as it is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{
    Batching, Delivery, EnqueueOutcome, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome,
    Limits, NewMessage, Queue, QueueBackend, QueueName, QueueStats, Receipt, Result, async_trait,
};
use queue_memory::MemoryBackend;
use tokio::sync::watch;

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does nothing and fails.
    Before(ErrorKind),
    /// It does what it should and fails all the same.
    After(ErrorKind),
    Panics,
}

/// An id that this backend refuses as bad input.
pub(crate) const REFUSED: &str = "refused";

#[derive(Debug)]
pub(crate) struct Watched {
    inner: MemoryBackend,
    limits: Limits,
    calls: Mutex<Vec<(&'static str, usize)>>,
    faults: Mutex<VecDeque<Fault>>,
    /// While this is set, calls are under way and have no effect.
    held: watch::Sender<bool>,
}

impl Watched {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_batches_of(Limits::STANDARD.max_batch)
    }

    pub(crate) fn with_batches_of(max_batch: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryBackend::new(),
            limits: Limits {
                max_batch,
                ..Limits::STANDARD
            },
            calls: Mutex::default(),
            faults: Mutex::default(),
            held: watch::Sender::default(),
        })
    }

    /// A queue of this backend, by way of shared round trips.
    pub(crate) fn batching(self: &Arc<Self>) -> Queue {
        Queue::new(Arc::new(Batching::new(self.clone())), "work").expect("a valid name")
    }

    /// The same queue, without.
    pub(crate) fn bare(&self) -> Queue {
        Queue::new(Arc::new(self.inner.clone()), "work").expect("a valid name")
    }

    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }

    /// What becomes of the next calls.
    pub(crate) fn fault(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// The sizes of the calls of one operation so far.
    pub(crate) fn sizes(&self, operation: &str) -> Vec<usize> {
        let calls = self.calls.lock().unwrap();
        let of_kind = calls.iter().filter(|(kind, _)| *kind == operation);
        of_kind.map(|(_, size)| *size).collect()
    }

    async fn run<T>(
        &self,
        operation: &'static str,
        size: usize,
        inner: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.calls.lock().unwrap().push((operation, size));
        let error = |kind| Err(Error::new(kind, operation, "a fault of the test"));
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Before(kind)) => return error(kind),
            Some(Fault::Panics) => panic!("a fault of the test"),
            Some(Fault::After(_)) | None => {}
        }
        let mut held = self.held.subscribe();
        let released = held.wait_for(|held| !held).await;
        released.expect("self owns the sender");
        let answer = inner.await;
        match fault {
            Some(Fault::After(kind)) => error(kind),
            _ => answer,
        }
    }
}

#[async_trait]
impl QueueBackend for Watched {
    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        let enqueue = async {
            if messages.iter().any(|m| m.id.as_str() == REFUSED) {
                return Err(Error::invalid("enqueue", "a message that is refused"));
            }
            self.inner.enqueue(queue, messages).await
        };
        self.run("enqueue", messages.len(), enqueue).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let asked = options.max_messages();
        self.run("lease", asked, self.inner.lease(queue, options))
            .await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        self.run("ack", receipts.len(), self.inner.ack(queue, receipts))
            .await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        self.run("change", changes.len(), self.inner.change(queue, changes))
            .await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        self.run("wait", 0, self.inner.wait(queue, at_most)).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.run("stats", 0, self.inner.stats(queue)).await
    }
}
