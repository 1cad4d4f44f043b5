//! The contract.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{
    Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, Limits, NewMessage,
    QueueName, QueueStats, Receipt, Result,
};

/// A store of queues with at-least-once delivery and visibility timeouts.
///
/// This trait is for those who write a backend; applications hold a [`Queue`](crate::Queue),
/// which checks and chunks their input before it gets here. It has no associated types, no
/// generics and no provided methods: `Arc<dyn QueueBackend>` always works, and a wrapper
/// cannot forget to forward something.
///
/// # Contract
///
/// A message is **stored** by an enqueue and from then on in one of four states: *delayed*,
/// *ready*, *leased* or *dead*. A **lease** is the right to work on a message until its
/// *visibility timeout* has passed; who holds it proves it with the delivery's **receipt**.
/// An **ack** ends the message; a **change** ends or moves the lease.
///
/// The *ready time* of a message is when it may be leased: enqueue time + delay, the expiry
/// of its last lease, the time of a nack + the nack's delay, or the time of a return or a
/// redrive. At its ready time itself, a message is ready. Times are those of the backend's
/// [`Clock`](crate::Clock), in whole milliseconds; a backend that is handed a finer duration
/// rounds it up.
///
/// - **E1 kept.** What enqueue accepted is delivered until it is acked, dead-lettered or
///   purged.
/// - **E2 idempotent.** An id that the queue holds, in whatever state, is a
///   [`Duplicate`](EnqueueOutcome::Duplicate), and what is stored stays untouched; so a failed
///   enqueue may be repeated. Of two equal ids in one call the first is stored.
/// - **E3 faithful.** Payload (any bytes, also none, up to the limit), headers and times come
///   back as they were sent.
/// - **E4 delayed.** A message is not delivered before its delay has passed, and is after.
/// - **L1 exclusive.** While a lease runs, nobody else is given that message.
/// - **L2 visible again.** A message whose lease ran out can be leased again, then and not
///   before. The timeout is the message's own, or the lease call's where that sets one.
/// - **L3 counted.** Attempts count 1, 2, 3 …, and every delivery has a fresh receipt.
/// - **L4 bounded.** A lease call never gives more than it was asked for. Alone, it gives
///   exactly min(asked, ready), in order of ready time (those that became ready in the same
///   millisecond in any order). Under contention it may give fewer, but some caller makes
///   progress. Under contention, and for a second after it, order is approximate; a message that
///   comes in late with an earlier ready time may be passed over for 200 ms.
/// - **A1 gone.** An acked message is never delivered again.
/// - **A2 fenced.** A receipt that a later delivery has superseded is
///   [`Lost`](LeaseOutcome::Lost) and changes nothing, in ack and in every change.
/// - **A3 late is fine.** An expired receipt that nothing has superseded still works. No
///   clock decides it, so no clock can break it.
/// - **A4 once.** A settled receipt is `Lost` from then on: an ack, a nack, a return and a
///   dead-lettering settle, an extension does not. Outcomes come one for each receipt, in
///   order, as if the receipts were used one after another.
///   [`Applied`](LeaseOutcome::Applied) is only said when it is certain.
/// - **A5 changed.** Extend moves the expiry to now + d, later or earlier; nack makes the
///   message ready after its delay; return makes it ready at once and takes the attempt back.
/// - **D1 dead letter.** A ready message that has been delivered as often as its
///   `max_attempts` says is not delivered again: the lease call that meets it makes it a dead
///   letter and goes on to the next, so a message that kills its worker stops too. A lease
///   call meets the messages in order until it has enough. Dead letters keep payload, headers
///   and reason; redrive starts them afresh, with no attempt counted.
/// - **Q1 isolated.** Queues do not see each other. A queue that nobody has used is empty,
///   not an error.
/// - **S1 counted right.** With nothing in flight, stats are exact.
/// - **W1 woken.** `wait` returns at once when a message is ready, as soon as the next delayed
///   or leased one falls due, and in any case after the time it was given, by the backend's
///   clock.
/// - **M1 managed.** Where there is a [`QueueAdmin`](crate::QueueAdmin), its calls do what they
///   say, to one queue and to nothing else; looking changes nothing.
/// - **C1 cancel-safe.** Dropping any future at any await point loses nothing; at worst a
///   message comes back after its timeout. A dropped call may still take effect, also after a
///   later call has begun.
/// - **C2 concurrent.** All of this holds for any number of tasks and processes.
/// - **R1 durable.** A durable backend keeps all of it over restart, reconnect and failover.
/// - **X1 repeatable.** After an error, the same call may be made again. A batch that failed
///   may have been carried out in part; then the repeat finds duplicates and lost leases, and
///   does no harm.
///
/// # For implementers
///
/// The handle guarantees what the documentation of each method calls *given*. Nothing that a
/// method is handed is worth a panic all the same: an empty batch gets an empty answer, and a
/// receipt that this backend never made is `Lost`.
///
/// **Every call ends in bounded time**, with an error where the store does not answer: set the
/// timeouts of its client so that they are well below the visibility timeouts in use. A listener
/// gives up a call that settles or extends when its leases have run out; a lease call it has to
/// wait for, since it must give back what that leases, and so must whoever stops it.
#[async_trait]
pub trait QueueBackend: fmt::Debug + Send + Sync + 'static {
    /// What this backend accepts.
    fn limits(&self) -> Limits;

    /// Stores `messages` and says for each, in order, whether it was new.
    ///
    /// *Given*: at most `max_batch` messages, each within the limits.
    ///
    /// # Errors
    /// After an error any of the messages may have been stored; repeating the call stores
    /// the rest.
    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>>;

    /// Leases up to as many ready messages as asked for; none when nothing is ready, or when
    /// others were faster.
    ///
    /// *Given*: at most `max_batch` messages asked for; a timeout within the limits.
    ///
    /// # Errors
    /// After an error messages may have been leased that nobody knows of; they come back
    /// when their visibility timeout has passed.
    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>>;

    /// Ends the messages that the receipts stand for.
    ///
    /// *Given*: at most `max_batch` receipts.
    ///
    /// # Errors
    /// After an error any of the messages may be gone; for those the repeat says `Lost`.
    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>>;

    /// Changes leases: extends them, or gives the messages up in one of three ways.
    ///
    /// *Given*: at most `max_batch` changes, their durations and reasons within the limits.
    ///
    /// # Errors
    /// After an error any of the changes may have been made; for those that settle, the
    /// repeat says `Lost`.
    async fn change(&self, queue: &QueueName, changes: &[LeaseChange])
    -> Result<Vec<LeaseOutcome>>;

    /// Returns when a message may be ready, or after `at_most`.
    ///
    /// It is a hint, not a promise: it may return early for no reason, and what was ready may
    /// be taken by another by the time the caller leases. But it does not sleep on work: when
    /// a message is ready it returns at once, and it returns as soon as the next delayed or
    /// leased message falls due. A backend that can be told of an enqueue returns at once
    /// then; one that cannot looks again at intervals.
    ///
    /// # Errors
    /// The store could not be asked.
    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()>;

    /// Counts the messages by state. An exhausted message whose last lease ran out is ready
    /// until a lease call buries it (D1).
    ///
    /// # Errors
    /// The store could not be asked.
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats>;
}
