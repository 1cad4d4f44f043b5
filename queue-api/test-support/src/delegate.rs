//! A backend that forwards its calls, so that a test states only what differs.

use std::{fmt, ops::Deref, time::Duration};

use queue_api::{
    DeadLetterPage, Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, Limits,
    MessagePage, NewMessage, PageOptions, PeekedMessage, Purge, QueueAdmin, QueueBackend,
    QueueName, QueueStats, Receipt, Redrive, Result, async_trait,
};

/// A kind of backend call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operation {
    Enqueue,
    Lease,
    Ack,
    Change,
    Wait,
    Stats,
}

/// What a backend answers.
pub trait Answer: Send {
    /// Takes the last item out of the answer. Returns whether it has one.
    fn remove_last(&mut self) -> bool {
        false
    }

    /// Adds a copy of the last item. Returns whether there is one.
    fn repeat_last(&mut self) -> bool {
        false
    }
}

impl Answer for () {}

impl Answer for QueueStats {}

impl<T: Clone + Send> Answer for Vec<T> {
    fn remove_last(&mut self) -> bool {
        self.pop().is_some()
    }

    fn repeat_last(&mut self) -> bool {
        let last = self.last().cloned();
        self.extend(last.clone());
        last.is_some()
    }
}

/// Forwards each call to another backend. Override what a test needs to differ, and use it as
/// [`Delegated`].
///
/// [`QueueBackend`] has no provided methods, so that a real wrapper cannot forget one.
#[async_trait]
#[allow(missing_docs)] // The methods are those of `QueueBackend`.
pub trait Delegate: fmt::Debug + Send + Sync + 'static {
    /// The backend that does the work.
    type Inner: QueueBackend + ?Sized;

    /// Where calls are forwarded to.
    fn inner(&self) -> &Self::Inner;

    /// Makes a forwarded call. Override it to act on calls of every kind.
    ///
    /// `size` is the number of messages, receipts or changes.
    async fn around<T: Answer>(
        &self,
        _operation: Operation,
        _size: usize,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        call.await
    }

    fn limits(&self) -> Limits {
        self.inner().limits()
    }

    async fn enqueue(&self, queue: &QueueName, all: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        let call = self.inner().enqueue(queue, all);
        self.around(Operation::Enqueue, all.len(), call).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let call = self.inner().lease(queue, options);
        let size = options.max_messages();
        self.around(Operation::Lease, size, call).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let call = self.inner().ack(queue, receipts);
        self.around(Operation::Ack, receipts.len(), call).await
    }

    async fn change(&self, queue: &QueueName, all: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        let call = self.inner().change(queue, all);
        self.around(Operation::Change, all.len(), call).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let call = self.inner().wait(queue, at_most);
        self.around(Operation::Wait, 0, call).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let call = self.inner().stats(queue);
        self.around(Operation::Stats, 0, call).await
    }
}

/// A [`Delegate`] as a backend.
#[derive(Debug)]
pub struct Delegated<D>(pub D);

impl<D> Deref for Delegated<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.0
    }
}

#[async_trait]
impl<D: Delegate> QueueBackend for Delegated<D> {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    async fn enqueue(&self, queue: &QueueName, all: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        self.0.enqueue(queue, all).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        self.0.lease(queue, options).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        self.0.ack(queue, receipts).await
    }

    async fn change(&self, queue: &QueueName, all: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        self.0.change(queue, all).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        self.0.wait(queue, at_most).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.0.stats(queue).await
    }
}

#[async_trait]
impl<D: Delegate<Inner: QueueAdmin>> QueueAdmin for Delegated<D> {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        self.0.inner().peek(queue, max).await
    }

    async fn messages(&self, queue: &QueueName, page: &PageOptions) -> Result<MessagePage> {
        self.0.inner().messages(queue, page).await
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        self.0.inner().purge(queue, what).await
    }

    async fn dead_letters(&self, queue: &QueueName, page: &PageOptions) -> Result<DeadLetterPage> {
        self.0.inner().dead_letters(queue, page).await
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        self.0.inner().redrive(queue, which).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        self.0.inner().delete_queue(queue).await
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        self.0.inner().list_queues().await
    }
}
