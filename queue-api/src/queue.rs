//! The handle that applications use.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use crate::{
    Delivery, EnqueueOutcome, Error, ErrorKind, InvalidInput, LeaseChange, LeaseOptions,
    LeaseOutcome, Limits, MessageId, NewMessage, QueueBackend, QueueName, QueueStats,
    QueueTransaction, Receipt, Result,
    defaults::Defaults,
    metrics::{self, Counters},
    telemetry::{
        log,
        trace::{self, Propagator},
    },
};

/// One queue of a backend.
///
/// The handle checks all input, splits batches to the backend's limits, and offers calls for
/// single messages. A clone is cheap and uses the same queue.
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
/// assert!(queue.ack(&delivery.receipt).await?.is_applied());
/// assert!(queue.lease().await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Queue {
    backend: Arc<dyn QueueBackend>,
    name: QueueName,
    limits: Limits,
    pub(crate) propagator: Option<Arc<dyn Propagator>>,
    pub(crate) defaults: Defaults,
    pub(crate) counters: Arc<Counters>,
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
    /// A handle for the queue `name` of `backend`. This sends nothing: a queue exists as soon as
    /// it has a message.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `name` is text that is not a valid
    /// [`QueueName`].
    pub fn new(
        backend: Arc<dyn QueueBackend>,
        name: impl TryInto<QueueName, Error: Into<Error>>,
    ) -> Result<Self> {
        let name = name.try_into().map_err(Into::into)?;
        Ok(Self {
            limits: backend.limits(),
            counters: Arc::new(Counters::new(&name)),
            name,
            backend,
            propagator: None,
            defaults: Defaults::default(),
        })
    }

    /// The queue's name. [`Admin`](crate::Admin) needs it.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// The backend of this queue.
    pub fn backend(&self) -> &Arc<dyn QueueBackend> {
        &self.backend
    }

    pub(crate) fn propagator(&self) -> Option<&dyn Propagator> {
        self.propagator.as_deref()
    }

    /// The limits of the backend.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Stores one message.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the message exceeds the backend's limits;
    /// nothing is stored. After any other error the message may have been stored. It is safe to
    /// enqueue the same message again.
    pub async fn enqueue(&self, message: &NewMessage) -> Result<EnqueueOutcome> {
        let outcomes = self.enqueue_batch(std::slice::from_ref(message)).await?;
        one("enqueue", outcomes)
    }

    /// Stores messages. Returns for each, in order, whether it was new.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if any message exceeds the backend's limits;
    /// nothing is stored. After any other error some of the messages may have been stored.
    /// Enqueueing the same messages again stores the rest.
    pub async fn enqueue_batch(&self, messages: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        self.send(None, messages).await
    }

    /// Sends messages to the backend, or to a transaction.
    pub(crate) async fn send(
        &self,
        transaction: Option<&mut dyn QueueTransaction>,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        let span = trace::send_span(&self.name, messages);
        let completed = span.in_scope(|| self.completed(messages));
        let messages = completed.as_deref().unwrap_or(messages);
        let chunks = self.enqueue_chunks(transaction, messages);
        let sent = span.instrument(chunks).await;
        if let Err(error) = &sent {
            span.record("error.type", error.kind().as_str());
        }
        sent
    }

    /// Copies of the messages with what the handle adds. `None` if it adds nothing.
    fn completed(&self, given: &[NewMessage]) -> Option<Vec<NewMessage>> {
        let propagator = self.propagator();
        if propagator.is_none() && self.defaults.is_empty() {
            return None;
        }
        let mut messages = given.to_vec();
        for (message, given) in messages.iter_mut().zip(given) {
            self.defaults.fill(message);
            if let Some(propagator) = propagator {
                trace::inject(propagator, message);
                // A trace context is no reason to refuse a message.
                if self
                    .limits
                    .check_messages(std::slice::from_ref(message))
                    .is_err()
                {
                    message.headers.clone_from(&given.headers);
                }
            }
        }
        Some(messages)
    }

    async fn enqueue_chunks(
        &self,
        mut transaction: Option<&mut dyn QueueTransaction>,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        self.limits.check_messages(messages)?;
        let mut outcomes = Vec::new();
        for chunk in messages.chunks(self.limits.max_batch.get()) {
            let sent = match &mut transaction {
                Some(transaction) => transaction.enqueue(&self.name, chunk),
                None => self.backend.enqueue(&self.name, chunk),
            };
            let answer = sent.await?;
            let answer = counted("enqueue", chunk.len(), answer)?;
            self.counters.enqueued(&answer);
            append(&mut outcomes, answer);
        }
        Ok(outcomes)
    }

    /// Leases one message for its own visibility timeout. Returns `None` if no message is ready
    /// or if other callers took them first.
    ///
    /// # Errors
    /// As [`lease_batch`](Queue::lease_batch).
    pub async fn lease(&self) -> Result<Option<Delivery>> {
        let mut deliveries = self.lease_batch(&LeaseOptions::new(1)).await?;
        Ok(deliveries.pop())
    }

    /// Leases ready messages, at most as many as requested. Returns none if no message is ready
    /// or if other callers took them first.
    ///
    /// A message with a visibility timeout of 0 is ready again at once. So after such a message this
    /// leases no further batch (see [`Limits::max_batch`]), which would return it again.
    ///
    /// If a lease ends while this leases the next batch, the message may be leased again. Then this
    /// returns only its newer delivery, and leases no further batch.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if zero messages are requested or the
    /// visibility timeout exceeds the limits. After any other error, messages may have been
    /// leased that no caller knows of. They become ready again after their visibility timeout.
    ///
    /// If the store fails after a part of the messages was leased, this call returns that part
    /// and logs the error.
    pub async fn lease_batch(&self, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let requested = options.max_messages();
        if requested == 0 {
            let wrong = InvalidInput::new("max_messages", "0", "at least 1");
            return Err(Error::invalid_value("lease", wrong));
        }
        if let Some(timeout) = options.visibility_timeout() {
            self.limits
                .check_visibility(timeout)
                .map_err(|wrong| Error::invalid_value("lease", wrong))?;
        }
        let mut deliveries = Vec::new();
        while deliveries.len() < requested {
            let chunk = (requested - deliveries.len()).min(self.limits.max_batch.get());
            let options = options.clone().with_max_messages(chunk);
            match self.backend.lease(&self.name, &options).await {
                Ok(more) => {
                    // Another call would return messages again that are ready again.
                    let is_ready = |delivery: &Delivery| delivery.visibility_timeout.is_zero();
                    let is_last = more.len() < chunk || more.iter().any(is_ready);
                    let leased = more.len();
                    let replaced = append_deliveries(&mut deliveries, more);
                    self.counters.leased(leased.saturating_sub(replaced));
                    if is_last || replaced > 0 {
                        break;
                    }
                }
                Err(error) if deliveries.is_empty() => return Err(error),
                // An error would hide what is leased already until its visibility timeout.
                Err(error) => {
                    let leased = deliveries.len();
                    log::lease_cut_short(&self.name, &error, leased, requested);
                    break;
                }
            }
        }
        Ok(deliveries)
    }

    /// Removes a message permanently.
    ///
    /// # Errors
    /// As [`ack_batch`](Queue::ack_batch).
    pub async fn ack(&self, receipt: &Receipt) -> Result<LeaseOutcome> {
        let outcomes = self.ack_batch(std::slice::from_ref(receipt)).await?;
        one("ack", outcomes)
    }

    /// Removes messages permanently. Returns one outcome for each receipt, in order.
    ///
    /// # Errors
    /// After an error, some of the messages may have been removed. For those, a repeat returns
    /// [`Lost`](LeaseOutcome::Lost).
    pub async fn ack_batch(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let mut outcomes = Vec::new();
        for chunk in receipts.chunks(self.limits.max_batch.get()) {
            let answer = self.ack_chunk(chunk).await?;
            self.counters.acked(&answer);
            append(&mut outcomes, answer);
        }
        Ok(outcomes)
    }

    /// Calls the backend once and updates no metrics. A listener uses it, because it does not
    /// count a `Lost` that an earlier call may have caused.
    pub(crate) async fn ack_chunk(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let answer = self.backend.ack(&self.name, receipts).await?;
        counted("ack", receipts.len(), answer)
    }

    /// Sets the expiry of a lease to now + `by`, whether that is later or earlier than before. With 0
    /// the message is ready at once, and the attempt counts; the receipt works until another
    /// delivery supersedes it.
    ///
    /// # Errors
    /// As [`change_batch`](Queue::change_batch).
    pub async fn extend(&self, receipt: &Receipt, by: Duration) -> Result<LeaseOutcome> {
        self.change(LeaseChange::extend(receipt.clone(), by)).await
    }

    /// Reports that handling a message failed. It becomes ready again after `delay`.
    ///
    /// # Errors
    /// As [`change_batch`](Queue::change_batch).
    pub async fn nack(&self, receipt: &Receipt, delay: Duration) -> Result<LeaseOutcome> {
        self.change(LeaseChange::nack(receipt.clone(), delay)).await
    }

    /// Releases a lease. The message is ready at once, and the attempt does not count.
    ///
    /// # Errors
    /// As [`change_batch`](Queue::change_batch).
    pub async fn release(&self, receipt: &Receipt) -> Result<LeaseOutcome> {
        self.change(LeaseChange::release(receipt.clone())).await
    }

    /// Makes a message a dead letter with this reason.
    ///
    /// # Errors
    /// As [`change_batch`](Queue::change_batch).
    pub async fn dead_letter(
        &self,
        receipt: &Receipt,
        reason: impl Into<String> + Send,
    ) -> Result<LeaseOutcome> {
        self.change(LeaseChange::dead_letter(receipt.clone(), reason))
            .await
    }

    /// Changes leases. Returns one outcome for each change, in order.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if a duration or a reason exceeds the limits;
    /// nothing is changed. After any other error, some of the changes may have been made. For
    /// those that settle a receipt, a repeat returns [`Lost`](LeaseOutcome::Lost).
    pub async fn change_batch(&self, changes: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        for (index, change) in changes.iter().enumerate() {
            self.limits.check_action(&change.action).map_err(|wrong| {
                let wrong = wrong.of_item(index, format!("change {index}"));
                Error::invalid_value("change", wrong)
            })?;
        }
        let mut outcomes = Vec::new();
        for chunk in changes.chunks(self.limits.max_batch.get()) {
            let answer = self.change_chunk(chunk).await?;
            let actions = chunk.iter().map(|change| &change.action);
            metrics::changed(&self.name, actions.zip(answer.iter().copied()));
            append(&mut outcomes, answer);
        }
        Ok(outcomes)
    }

    /// As [`ack_chunk`](Queue::ack_chunk). The caller has checked the changes.
    pub(crate) async fn change_chunk(&self, changes: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        let answer = self.backend.change(&self.name, changes).await?;
        counted("change", changes.len(), answer)
    }

    async fn change(&self, change: LeaseChange) -> Result<LeaseOutcome> {
        let outcomes = self.change_batch(std::slice::from_ref(&change)).await?;
        one("change", outcomes)
    }

    /// Waits until a message may be ready, at most for `at_most`. This is a hint: call
    /// [`lease`](Queue::lease) to find out.
    ///
    /// # Errors
    /// The store did not answer or refused.
    pub async fn wait(&self, at_most: Duration) -> Result<()> {
        self.backend.wait(&self.name, at_most).await
    }

    /// Counts the messages by state, and sets the gauges of [`metrics`] to the result.
    ///
    /// # Errors
    /// The store did not answer or refused.
    pub async fn stats(&self) -> Result<QueueStats> {
        let stats = self.backend.stats(&self.name).await?;
        metrics::depth(&self.name, &stats);
        Ok(stats)
    }
}

/// Checks that `answer` has one outcome for each of the `expected` items. Anything else is a bug
/// of the backend, and would assign outcomes to the wrong messages.
pub(crate) fn counted<T>(
    operation: &'static str,
    expected: usize,
    answer: Vec<T>,
) -> Result<Vec<T>> {
    if answer.len() == expected {
        return Ok(answer);
    }
    let message = format!(
        "the backend returned {} outcomes for a batch of {expected}; it must return one for each",
        answer.len()
    );
    Err(Error::new(ErrorKind::Internal, operation, message))
}

/// Appends the answer to one lease call. A message whose earlier lease ended meanwhile stays once,
/// with its new receipt, which has superseded the earlier one. Returns how many did.
fn append_deliveries(deliveries: &mut Vec<Delivery>, more: Vec<Delivery>) -> usize {
    let before = deliveries.len();
    if before > 0 {
        let leased_now: HashSet<&MessageId> = more.iter().map(|each| &each.id).collect();
        deliveries.retain(|earlier| !leased_now.contains(&earlier.id));
    }
    let replaced = before - deliveries.len();
    append(deliveries, more);
    replaced
}

/// Appends the answer to one chunk. Most batches are one chunk, whose answer is not copied.
pub(crate) fn append<T>(answers: &mut Vec<T>, answer: Vec<T>) {
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
