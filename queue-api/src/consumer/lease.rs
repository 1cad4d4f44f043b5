//! A leased message as an owned value.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{
    mpsc::{UnboundedSender, WeakUnboundedSender},
    oneshot, watch,
};

use super::listener_task::{Command, Settlement};
use crate::{
    Delivery, Error, ErrorKind, Headers, LeaseAction, LeaseOutcome, MAX_REASON_BYTES, MessageId,
    Result,
};

/// A message that this process may work on. The listener renews the lease in the background until
/// you settle it.
///
/// Settle it with [`ack`](Lease::ack), [`nack`](Lease::nack), [`dead_letter`](Lease::dead_letter) or
/// [`release`](Lease::release). **The call settles; awaiting the future returns the outcome.** The
/// listener's task sends the settlement, together with those of other leases. Dropping the future
/// does not revoke it.
///
/// # Failures of the store
///
/// A failed settlement is repeated while the lease lasts. After that, the future returns the error,
/// and the message comes back after its timeout unless the settlement took effect. An error that does
/// not pass is returned at once. But if another settlement of the same call may have caused it, each is
/// repeated alone first.
///
/// If a repeat says [`Lost`](LeaseOutcome::Lost), the failed call may have taken effect, or a purge or
/// another process may have settled the message. Then the future returns the error of the failed call.
/// A call that hangs is given up after 70 seconds, or when its leases have expired, whichever is first.
/// While the lease lasts, it is repeated. After that, the future fails with
/// [`TimedOut`](ErrorKind::TimedOut). But a backend
/// [must not hang](crate::QueueBackend#for-implementers).
///
/// # Drop without settlement
///
/// The message becomes ready again after [`RELEASE_DELAY`](Lease::RELEASE_DELAY), and the attempt
/// counts. You can drop a lease on any thread, inside a runtime or not.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::{LeaseOutcome, NewMessage, Queue, consumer::ListenOptions};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> queue_api::Result<()> {
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "greetings")?;
/// queue.enqueue(&NewMessage::new("hello")).await?;
///
/// let mut listener = queue.listen(ListenOptions::new(8))?;
/// let lease = listener.next().await.expect("the listener was not stopped");
/// assert_eq!(lease.payload(), "hello");
/// assert_eq!(lease.attempt(), 1);
/// assert_eq!(lease.ack().await?, LeaseOutcome::Applied);
/// # Ok(())
/// # }
/// ```
pub struct Lease {
    delivery: Delivery,
    key: u64,
    commands: UnboundedSender<Command>,
    end: watch::Receiver<Option<LeaseEnd>>,
    state: LeaseState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseState {
    /// Claimed and not handed out.
    Unstarted,
    /// Handed out.
    Open,
    Settled,
}

/// Why a lease ended: the output of [`Lease::ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseEnd {
    /// It was settled.
    Settled,
    /// The store refused to renew it: another consumer has the message, or it was settled or purged
    /// elsewhere.
    Superseded,
    /// It was not renewed in time, so another consumer may have the message. If none has, you can
    /// still settle it.
    Expired,
    /// It reached the limit of
    /// [`ListenOptions::with_max_lease_time`](super::ListenOptions::with_max_lease_time).
    TimeLimit,
    /// The runtime that renewed it has shut down.
    Unattended,
}

impl LeaseEnd {
    /// Its value in metrics and log lines.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::TimeLimit => "time_limit",
            Self::Unattended => "unattended",
        }
    }
}

impl Lease {
    /// When a lease is dropped without settlement, its message becomes ready after this time, or
    /// after its visibility timeout if that is shorter. The pause slows down a handler that fails on
    /// every message.
    pub const RELEASE_DELAY: Duration = Duration::from_secs(1);

    pub(super) fn new(
        delivery: Delivery,
        key: u64,
        commands: UnboundedSender<Command>,
        end: watch::Receiver<Option<LeaseEnd>>,
    ) -> Self {
        Self {
            delivery,
            key,
            commands,
            end,
            state: LeaseState::Unstarted,
        }
    }

    /// From now on a drop counts as an attempt.
    pub(super) fn hand_out(&mut self) {
        self.state = LeaseState::Open;
    }

    /// The message's id.
    pub fn id(&self) -> &MessageId {
        &self.delivery.id
    }

    /// The bytes that were enqueued.
    pub fn payload(&self) -> &Bytes {
        &self.delivery.payload
    }

    /// The headers that were enqueued.
    pub fn headers(&self) -> &Headers {
        &self.delivery.headers
    }

    /// Delivery number, from 1.
    pub fn attempt(&self) -> u32 {
        self.delivery.attempt
    }

    /// The number of deliveries after which the message becomes a dead letter.
    pub fn max_attempts(&self) -> u32 {
        self.delivery.max_attempts
    }

    /// When the message was enqueued, by the backend's clock.
    pub fn enqueued_at(&self) -> SystemTime {
        self.delivery.enqueued_at
    }

    /// The delivery as the backend returned it, with the expiry before any renewal. To settle its
    /// receipt by other means, [`detach`](Lease::detach) the lease.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Ends the message for good.
    ///
    /// # Errors
    /// The future's error: the store failed until the lease expired, or for a reason that does not
    /// pass. The message may be gone or come back.
    pub fn ack(self) -> SettleFuture {
        self.settle(Settlement::Ack)
    }

    /// Reports a failure: the message becomes ready again after `delay`.
    ///
    /// # Errors
    /// The future's error: as [`ack`](Lease::ack), or [`InvalidInput`](ErrorKind::InvalidInput) if
    /// `delay` exceeds the backend's limit. The lease is then treated as dropped.
    pub fn nack(self, delay: Duration) -> SettleFuture {
        self.settle(Settlement::Change(LeaseAction::Nack { delay }))
    }

    /// Makes the message a dead letter. `reason` is cut to [`MAX_REASON_BYTES`].
    ///
    /// # Errors
    /// The future's error: as [`ack`](Lease::ack).
    pub fn dead_letter(self, reason: impl Into<String>) -> SettleFuture {
        let reason = cut(reason.into());
        self.settle(Settlement::Change(LeaseAction::DeadLetter { reason }))
    }

    /// Gives the message back unprocessed: it becomes ready at once, and the attempt does not count.
    ///
    /// # Errors
    /// The future's error: as [`ack`](Lease::ack).
    pub fn release(self) -> SettleFuture {
        self.settle(Settlement::Change(LeaseAction::Release))
    }

    /// Stops renewing the lease and leaves the message as it is. Settle it by the receipt of the
    /// returned delivery. Otherwise it comes back after its visibility timeout.
    pub fn detach(self) -> Delivery {
        let delivery = self.delivery.clone();
        self.settle(Settlement::Detach);
        delivery
    }

    /// Sets the lease to expire `by` from now. Renewal continues after that. Use this to survive a
    /// time in which the lease cannot be renewed, or to exceed the listener's limit. After the lease
    /// has [ended](Lease::ended), it can be extended if no other consumer has the message, but it is
    /// not renewed again. An extension by 0 ends the lease: the message is ready at once, and the
    /// attempt counts.
    ///
    /// # Errors
    /// The future's error: as [`ack`](Lease::ack), or [`InvalidInput`](ErrorKind::InvalidInput) if
    /// `by` exceeds the backend's limit.
    pub fn extend(&self, by: Duration) -> SettleFuture {
        self.extender().extend(by)
    }

    /// Resolves when another consumer may have the message, so that you can stop side effects. It
    /// also resolves when the lease is settled.
    ///
    /// Time is measured on a monotonic clock, from before the lease or renewal call was sent.
    pub fn ended(&self) -> impl Future<Output = LeaseEnd> + Send + use<> {
        self.extender().ended()
    }

    pub(super) fn extender(&self) -> Extender {
        Extender {
            key: self.key,
            commands: self.commands.downgrade(),
            end: self.end.clone(),
        }
    }

    /// Whether [`ended`](Lease::ended) has resolved.
    pub fn is_ended(&self) -> bool {
        self.end.borrow().is_some() || self.end.has_changed().is_err()
    }

    fn settle(mut self, settlement: Settlement) -> SettleFuture {
        self.state = LeaseState::Settled;
        send(&self.commands, |answer| Command::Settle {
            key: self.key,
            settlement,
            answer: Some(answer),
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let settlement = match self.state {
            LeaseState::Unstarted => Settlement::ReleaseUnstarted,
            LeaseState::Open => Settlement::Dropped,
            LeaseState::Settled => return,
        };
        // If the task is gone, nothing renews the lease, and the message comes back.
        let _ = self.commands.send(Command::Settle {
            key: self.key,
            settlement,
            answer: None,
        });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("delivery", &self.delivery)
            .field("end", &*self.end.borrow())
            .finish_non_exhaustive()
    }
}

/// Extends a lease and watches its end, without owning it.
#[derive(Clone)]
pub(super) struct Extender {
    key: u64,
    /// Weak, so that an extender that is kept somewhere does not keep the listener's task running.
    commands: WeakUnboundedSender<Command>,
    end: watch::Receiver<Option<LeaseEnd>>,
}

impl Extender {
    pub(super) fn extend(&self, by: Duration) -> SettleFuture {
        let key = self.key;
        match self.commands.upgrade() {
            Some(commands) => send(&commands, |answer| Command::Extend { key, by, answer }),
            None => SettleFuture(oneshot::channel().1),
        }
    }

    pub(super) fn ended(&self) -> impl Future<Output = LeaseEnd> + Send + use<> {
        let mut end = self.end.clone();
        async move {
            match end.wait_for(Option::is_some).await {
                Ok(end) => end.unwrap_or(LeaseEnd::Unattended),
                Err(_) => LeaseEnd::Unattended,
            }
        }
    }
}

fn send(
    commands: &UnboundedSender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<LeaseOutcome>>) -> Command,
) -> SettleFuture {
    let (answer, receiver) = oneshot::channel();
    // If the task is gone, the sender is dropped with the command, and the future fails.
    let _ = commands.send(command(answer));
    SettleFuture(receiver)
}

/// The future outcome of a settlement or an extension. The call is made even if you do not await
/// this.
#[derive(Debug)]
pub struct SettleFuture(oneshot::Receiver<Result<LeaseOutcome>>);

impl Future for SettleFuture {
    type Output = Result<LeaseOutcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unavailable,
                "settle",
                "the listener's task has ended, so the lease is not renewed or settled",
            ))
        }))
    }
}

/// The longest prefix of `reason` that a backend accepts.
fn cut(mut reason: String) -> String {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}
