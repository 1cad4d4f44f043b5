//! The contract that every backend implements.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, Limits, NewMessage,
    QueueName, QueueStats, Receipt, Result,
};

/// A store of queues with at-least-once delivery and visibility timeouts.
///
/// Implement this trait to add a backend. Applications use a [`Queue`](crate::Queue), which
/// checks their input and splits their batches before it calls the backend.
///
/// The trait has no associated types, no generics and no provided methods. So
/// `Arc<dyn QueueBackend>` always works, and a wrapper cannot forget to forward a method.
///
/// # Contract
///
/// A stored message is in one of four states: *delayed*, *ready*, *leased* or *dead*. A **lease**
/// is the right to work on a message until its *visibility timeout* has passed. Each delivery has
/// a **receipt**, which identifies its lease. An **ack** removes the message. A **change** moves
/// the expiry of the lease or ends it.
///
/// The *ready time* of a message is the first millisecond in which it can be leased. It is set
/// by the last of these events:
///
/// | event | ready time |
/// |---|---|
/// | enqueue | time of the enqueue + delay |
/// | lease, extend | expiry of the lease |
/// | nack | time of the nack + its delay |
/// | release, redrive | time of the call |
///
/// All times come from the backend's [`Clock`](crate::Clock), in whole milliseconds. A backend
/// rounds a finer duration up.
///
/// - **E1 kept.** A message that `enqueue` accepted is delivered until it is acked,
///   dead-lettered or purged.
/// - **E2 idempotent.** If the queue already has a message with the same id, in any state,
///   `enqueue` returns [`Duplicate`](EnqueueOutcome::Duplicate) and leaves that message
///   unchanged. So you can repeat a failed enqueue. If one call contains an id twice, the first
///   message is stored.
/// - **E3 faithful.** Payload, headers and enqueue time come back as they were sent. A payload can be
///   any bytes up to the limit, or empty. A setting that is `None` has the default of
///   [`NewMessage`].
/// - **E4 delayed.** A message is delivered after its delay has passed, not before.
/// - **L1 exclusive.** While a lease runs, no other call can lease the message.
/// - **L2 visible again.** When a lease expires, the message can be leased again, and not before.
///   The lease lasts for the visibility timeout of the lease call. If the call sets none, the
///   message's own applies. With a timeout of 0 the delivery counts and has a receipt (L3, A3), and
///   the message is ready again at once.
/// - **L3 counted.** Attempts are numbered 1, 2, 3 …, and every delivery has a new receipt. The
///   number of a released attempt is used again.
/// - **L4 bounded.** A lease call never returns more messages than requested. It meets each message
///   once, however short the visibility timeout is: it does not return a message twice, nor make a
///   dead letter of what it returns. If no other call competes with it, it returns exactly
///   min(requested, ready) messages in order of ready time. Messages that became ready in the same
///   millisecond come in any order. Under contention it may return fewer, but at least one caller
///   makes progress. Under contention, and for a second after it, order is approximate; a message
///   that comes in late with an earlier ready time may be passed over for 200 ms.
/// - **A1 gone.** An acked message is never delivered again.
/// - **A2 fenced.** A later delivery supersedes all earlier receipts of the message. An ack or
///   a change with a superseded receipt is [`Lost`](LeaseOutcome::Lost) and changes nothing.
/// - **A3 late is fine.** An expired receipt still works if nothing has superseded it. No clock
///   decides this, so a wrong clock cannot break it.
/// - **A4 once.** Ack, nack, release and dead-letter settle the receipt; extend does not. A
///   settled receipt is `Lost` from then on. A call returns one outcome for each receipt, in
///   order, as if the receipts were used one after another. It returns
///   [`Applied`](LeaseOutcome::Applied) only if that is certain.
/// - **A5 changed.** Extend sets the expiry to now + d, whether that is later or earlier than
///   before. An extension by 0 makes the message ready at once. The attempt counts. Nack makes the
///   message ready after the nack's delay. Release makes it ready at once and takes back the
///   attempt.
/// - **D1 dead letter.** A ready message whose attempts have reached its `max_attempts` is not
///   delivered again. The lease call that reaches it makes it a dead letter and continues with
///   the next message. So a message that crashes its worker is not delivered for ever. A lease call
///   goes through the messages in order until it has enough. A dead letter keeps its payload, its
///   headers and the reason. Redrive makes it ready with no attempts counted.
/// - **Q1 isolated.** Queues do not affect each other. A queue that was never used is empty, not
///   an error. If the store cannot have a queue of some name, every call on it is
///   [`InvalidInput`](crate::ErrorKind::InvalidInput).
/// - **S1 counted right.** While no call is in flight, stats are exact.
/// - **W1 woken.** `wait` returns at once if a message is ready. Otherwise it returns as soon as
///   the next delayed or leased message becomes ready by the backend's clock. It returns after
///   `at_most` at the latest, by the backend's clock or by tokio's, whichever is first. So it ends
///   also while a test stops the backend's clock. It may return early now and then, but not
///   every time: a caller that waits in a loop would spin.
/// - **M1 managed.** If the backend has a [`QueueAdmin`](crate::QueueAdmin), each call does what
///   its documentation says, to one queue and nothing else. Calls that read change nothing.
/// - **C1 cancel-safe.** Dropping a future at any await point loses no message. At worst, a
///   message comes back after its visibility timeout. A dropped call may still take effect, even
///   after a later call has begun.
/// - **C2 concurrent.** All of this holds for any number of tasks and processes.
/// - **R1 durable.** A durable backend keeps all of this across restarts, reconnects and
///   failovers.
/// - **X1 repeatable.** After an error, you can repeat the same call. If a failed batch took
///   effect in part, the repeat returns `Duplicate` or `Lost` for that part and does no harm.
///
/// # For implementers
///
/// Each method says what the handle guarantees. Never panic on other input: an empty batch gets
/// an empty answer, and a receipt that this backend did not create is `Lost`.
///
/// **Every call must end in bounded time**, with an error if the store does not answer. Set the
/// timeouts of the store's client well below the visibility timeouts in use. If a call hangs all the
/// same:
///
/// - A listener gives up an ack or a change after 70 seconds, or when its leases have expired, whichever is
///   first. While a lease lasts, it makes the call again.
/// - It gives up a lease call after 70 seconds, and a wait 10 seconds after its time. Then it calls
///   again. What the lease call took comes back after its visibility timeout. Stopping the listener
///   waits for a lease call, because it must release what that call leases; a worker's shutdown ends
///   after its grace.
/// - After a lease call of more than a minute, a listener takes the process for suspended, and releases
///   leases that have expired.
/// - [`Batching`](crate::Batching) lets a batch wait for at most 10 seconds for the one before.
#[async_trait]
pub trait QueueBackend: fmt::Debug + Send + Sync + 'static {
    /// The limits of this backend.
    fn limits(&self) -> Limits;

    /// Stores `messages`. Returns for each, in order, whether it was new.
    ///
    /// The handle guarantees: at most `max_batch` messages, each within the limits. Read their
    /// settings with the methods that end in `_or_default`, such as
    /// [`delay_or_default`](NewMessage::delay_or_default).
    ///
    /// # Errors
    /// After an error, any of the messages may have been stored. Repeating the call stores the
    /// rest.
    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>>;

    /// Leases ready messages, at most as many as requested. Returns none if no message is ready
    /// or if other callers took them first.
    ///
    /// The handle guarantees: at most `max_batch` messages requested, and a visibility timeout
    /// within the limits.
    ///
    /// # Errors
    /// After an error, messages may have been leased that no caller knows of. They become ready
    /// again after their visibility timeout.
    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>>;

    /// Removes the messages of these receipts.
    ///
    /// The handle guarantees: at most `max_batch` receipts.
    ///
    /// # Errors
    /// After an error, any of the messages may have been removed. For those, the repeat returns
    /// `Lost`.
    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>>;

    /// Changes leases: extends them, or ends them with a nack, a release or a dead letter.
    ///
    /// The handle guarantees: at most `max_batch` changes, with durations and reasons within the
    /// limits.
    ///
    /// # Errors
    /// After an error, any of the changes may have been made. For those that settle a receipt,
    /// the repeat returns `Lost`.
    async fn change(&self, queue: &QueueName, changes: &[LeaseChange])
    -> Result<Vec<LeaseOutcome>>;

    /// Waits until a message may be ready, at most for `at_most`.
    ///
    /// The result is a hint. `wait` may return early for no reason, and another caller may lease
    /// the message first. It does not return early each time: callers wait in a loop, which must
    /// not spin. It never sleeps while a message is ready, and it returns as soon as the next
    /// delayed or leased message becomes ready. A backend that is notified of enqueues returns on
    /// a new message at once; other backends poll.
    ///
    /// # Errors
    /// The store did not answer or refused.
    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()>;

    /// Counts the messages by state. A message without attempts left whose last lease has expired
    /// counts as ready until a lease call makes it a dead letter (D1).
    ///
    /// # Errors
    /// The store did not answer or refused.
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats>;
}

/// A pointer to a backend is a backend, so `Arc<dyn QueueBackend>` goes wherever a backend goes.
macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        impl<B: QueueBackend + ?Sized> QueueBackend for $pointer<B> {
            fn limits(&self) -> Limits {
                (**self).limits()
            }

            async fn enqueue(
                &self,
                queue: &QueueName,
                messages: &[NewMessage],
            ) -> Result<Vec<EnqueueOutcome>> {
                (**self).enqueue(queue, messages).await
            }

            async fn lease(
                &self,
                queue: &QueueName,
                options: &LeaseOptions,
            ) -> Result<Vec<Delivery>> {
                (**self).lease(queue, options).await
            }

            async fn ack(
                &self,
                queue: &QueueName,
                receipts: &[Receipt],
            ) -> Result<Vec<LeaseOutcome>> {
                (**self).ack(queue, receipts).await
            }

            async fn change(
                &self,
                queue: &QueueName,
                changes: &[LeaseChange],
            ) -> Result<Vec<LeaseOutcome>> {
                (**self).change(queue, changes).await
            }

            async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
                (**self).wait(queue, at_most).await
            }

            async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
                (**self).stats(queue).await
            }
        }
    )*};
}

forward!(Arc, Box);
