//! The handle that applications hold.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Delivery, EnqueueOutcome, Error, LeaseChange, LeaseOptions, LeaseOutcome, Limits, NewMessage,
    QueueBackend, QueueName, QueueStats, Receipt, Result,
    metrics::{self, Counters},
    trace::{self, Propagator},
};
use tracing::Instrument;

/// A queue of a backend: checks everything once, chunks batches to the backend's limits, and
/// offers single messages on top of them.
///
/// Cloning it is cheap and gives another handle on the same queue.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::{NewMessage, Queue};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "greetings")?;
/// queue.enqueue(&NewMessage::new("hello")).await?;
///
/// let delivery = queue.lease().await?.expect("one message is ready");
/// assert_eq!(delivery.payload, "hello");
/// queue.ack(&delivery.receipt).await?;
/// assert!(queue.lease().await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Queue {
    backend: Arc<dyn QueueBackend>,
    name: QueueName,
    limits: Limits,
    propagator: Option<Arc<dyn Propagator>>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.name)
            .field("backend", &self.backend)
            .finish()
    }
}

impl Queue {
    /// Binds the queue `name` of `backend`. Nothing is sent; a queue need not be created.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when `name` is not a [`QueueName`].
    pub fn new(backend: Arc<dyn QueueBackend>, name: &str) -> Result<Self> {
        let name = QueueName::new(name)?;
        Ok(Self {
            limits: backend.limits(),
            counters: Arc::new(Counters::new(&name)),
            name,
            backend,
            propagator: None,
        })
    }

    /// Carries traces from senders to workers: enqueues add the current trace context to the
    /// headers, and workers tie their spans to it.
    #[must_use]
    pub fn with_propagator(mut self, propagator: Arc<dyn Propagator>) -> Self {
        self.propagator = Some(propagator);
        self
    }

    /// The queue's name, as [`QueueAdmin`](crate::QueueAdmin) takes it.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// The backend that this handle is bound to.
    pub fn backend(&self) -> &Arc<dyn QueueBackend> {
        &self.backend
    }

    pub(crate) fn propagator(&self) -> Option<&dyn Propagator> {
        self.propagator.as_deref()
    }

    /// What the backend accepts.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Stores one message.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the message is outside the
    /// backend's limits; nothing is stored then. After any other error it may be stored or
    /// not, and enqueueing the same message again is safe.
    pub async fn enqueue(&self, message: &NewMessage) -> Result<EnqueueOutcome> {
        let outcomes = self.enqueue_batch(std::slice::from_ref(message)).await?;
        one("enqueue", outcomes)
    }

    /// Stores messages and says for each, in order, whether it was new.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when any message is outside the
    /// backend's limits; none is stored then. After any other error some of them may be
    /// stored, and enqueueing the same messages again stores the rest.
    pub async fn enqueue_batch(&self, messages: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        let span = trace::send_span(&self.name, messages);
        let injected = self
            .propagator()
            .map(|propagator| span.in_scope(|| trace::injected(propagator, messages)));
        let messages = injected.as_deref().unwrap_or(messages);
        self.send(messages).instrument(span).await
    }

    async fn send(&self, messages: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        self.limits.check_messages(messages)?;
        let mut outcomes = Vec::new();
        for chunk in messages.chunks(self.limits.max_batch) {
            let answer = self.backend.enqueue(&self.name, chunk).await?;
            let answer = counted("enqueue", chunk.len(), answer)?;
            self.counters.enqueued(&answer);
            append(&mut outcomes, answer);
        }
        Ok(outcomes)
    }

    /// Leases one message for its own visibility timeout; `None` when nothing is ready, or when
    /// others were faster.
    ///
    /// # Errors
    /// As [`lease_batch`](Queue::lease_batch).
    pub async fn lease(&self) -> Result<Option<Delivery>> {
        let mut deliveries = self.lease_batch(&LeaseOptions::new(1)).await?;
        Ok(deliveries.pop())
    }

    /// Leases up to as many messages as asked for; an empty answer says that none is ready, or
    /// that others were faster.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when nothing is asked for or the
    /// visibility timeout is outside the limits. After any other error messages may have been
    /// leased that nobody knows of; they come back after their visibility timeout. When some
    /// were leased before the store failed, those are given and the failure is logged: an
    /// error would hide them until their timeout.
    pub async fn lease_batch(&self, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let asked = options.max_messages();
        if asked == 0 {
            return Err(Error::invalid(
                "lease",
                "0 messages asked for, at least 1 is needed",
            ));
        }
        if let Some(timeout) = options.visibility_timeout() {
            self.limits
                .check_visibility(timeout)
                .map_err(|wrong| Error::invalid("lease", wrong))?;
        }
        let mut deliveries = Vec::new();
        while deliveries.len() < asked {
            let chunk = (asked - deliveries.len()).min(self.limits.max_batch);
            let options = options.clone().with_max_messages(chunk);
            match self.backend.lease(&self.name, &options).await {
                Ok(more) => {
                    self.counters.leased(more.len());
                    let exhausted = more.len() < chunk;
                    append(&mut deliveries, more);
                    if exhausted {
                        break;
                    }
                }
                Err(error) if deliveries.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(queue = %self.name, %error, "lease of a further chunk failed");
                    break;
                }
            }
        }
        Ok(deliveries)
    }

    /// Ends a message for good.
    ///
    /// # Errors
    /// As [`ack_batch`](Queue::ack_batch).
    pub async fn ack(&self, receipt: &Receipt) -> Result<LeaseOutcome> {
        let outcomes = self.ack_batch(std::slice::from_ref(receipt)).await?;
        one("ack", outcomes)
    }

    /// Ends messages for good, with one outcome for each receipt, in order.
    ///
    /// # Errors
    /// After an error some of the messages may be gone; repeating the call says
    /// [`Lost`](LeaseOutcome::Lost) for those.
    pub async fn ack_batch(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let mut outcomes = Vec::new();
        for chunk in receipts.chunks(self.limits.max_batch) {
            let answer = self.ack_chunk(chunk).await?;
            self.counters.acked(&answer);
            append(&mut outcomes, answer);
        }
        Ok(outcomes)
    }

    /// One call of the backend, which counts nothing: a listener knows more than the answer says.
    pub(crate) async fn ack_chunk(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let answer = self.backend.ack(&self.name, receipts).await?;
        counted("ack", receipts.len(), answer)
    }

    /// Makes the lease run out `by` from now, later or earlier than it would.
    ///
    /// # Errors
    /// As [`change_batch`](Queue::change_batch).
    pub async fn extend(&self, receipt: &Receipt, by: Duration) -> Result<LeaseOutcome> {
        self.change_one(LeaseChange::extend(receipt.clone(), by))
            .await
    }

    /// Gives a message up as failed: it is ready again after `delay`.
    ///
    /// # Errors
    /// As [`change_batch`](Queue::change_batch).
    pub async fn nack(&self, receipt: &Receipt, delay: Duration) -> Result<LeaseOutcome> {
        self.change_one(LeaseChange::nack(receipt.clone(), delay))
            .await
    }

    /// Gives a message back unprocessed: it is ready at once and the attempt does not count.
    /// This is the contract's *return*, which Rust keeps to itself.
    ///
    /// # Errors
    /// As [`change_batch`](Queue::change_batch).
    pub async fn release(&self, receipt: &Receipt) -> Result<LeaseOutcome> {
        self.change_one(LeaseChange::release(receipt.clone())).await
    }

    /// Makes a message a dead letter, for `reason`.
    ///
    /// # Errors
    /// As [`change_batch`](Queue::change_batch).
    pub async fn dead_letter(
        &self,
        receipt: &Receipt,
        reason: impl Into<String> + Send,
    ) -> Result<LeaseOutcome> {
        self.change_one(LeaseChange::dead_letter(receipt.clone(), reason))
            .await
    }

    /// Changes leases, with one outcome for each change, in order.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when a duration or a reason is outside
    /// the limits; nothing is changed then. After any other error some of the changes may have
    /// been made; repeating the call says [`Lost`](LeaseOutcome::Lost) for those that settled
    /// their lease.
    pub async fn change_batch(&self, changes: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        for (index, change) in changes.iter().enumerate() {
            self.limits
                .check_action(&change.action)
                .map_err(|wrong| Error::invalid("change", format!("change {index}: {wrong}")))?;
        }
        let mut outcomes = Vec::new();
        for chunk in changes.chunks(self.limits.max_batch) {
            let answer = self.change_chunk(chunk).await?;
            let actions = chunk.iter().map(|change| &change.action);
            metrics::changed(&self.name, actions.zip(answer.iter().copied()));
            append(&mut outcomes, answer);
        }
        Ok(outcomes)
    }

    /// As [`ack_chunk`](Queue::ack_chunk), of changes that have been checked.
    pub(crate) async fn change_chunk(&self, changes: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        let answer = self.backend.change(&self.name, changes).await?;
        counted("change", changes.len(), answer)
    }

    async fn change_one(&self, change: LeaseChange) -> Result<LeaseOutcome> {
        let outcomes = self.change_batch(std::slice::from_ref(&change)).await?;
        one("change", outcomes)
    }

    /// Returns when a message may be ready, or after `at_most`. A hint: lease to find out.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn wait(&self, at_most: Duration) -> Result<()> {
        self.backend.wait(&self.name, at_most).await
    }

    /// Counts the messages by state, and sets the gauges of [`metrics`] to it.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn stats(&self) -> Result<QueueStats> {
        let stats = self.backend.stats(&self.name).await?;
        metrics::depth(&self.name, &stats);
        Ok(stats)
    }
}

/// The answer to a batch, if it answers each of the `asked`: a backend that does not is broken,
/// and pairing its outcomes with the wrong messages would be worse than an error.
pub(crate) fn counted<T>(operation: &'static str, asked: usize, answer: Vec<T>) -> Result<Vec<T>> {
    if answer.len() == asked {
        return Ok(answer);
    }
    Err(Error::new(
        crate::ErrorKind::Internal,
        operation,
        format!(
            "the backend gave {} outcomes for a batch of {asked}",
            answer.len()
        ),
    ))
}

/// Puts the answers to the chunks of a batch together. Most batches are one chunk, whose answer is
/// taken as it is.
fn append<T>(answers: &mut Vec<T>, answer: Vec<T>) {
    if answers.is_empty() {
        *answers = answer;
    } else {
        answers.extend(answer);
    }
}

fn one<T>(operation: &'static str, answer: Vec<T>) -> Result<T> {
    let mut answer = counted(operation, 1, answer)?;
    Ok(answer.remove(0))
}
