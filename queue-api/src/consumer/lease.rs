//! A message in the hands of somebody, as an owned value.

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

/// A message that this process may work on, for as long as the value lives: it is renewed in the
/// background, well before it runs out, until there is a settlement.
///
/// The settlements are [`ack`](Lease::ack), [`nack`](Lease::nack),
/// [`dead_letter`](Lease::dead_letter) and [`release`](Lease::release). **A call gives the
/// settlement, awaiting it tells the outcome**: the listener's task carries it out, together with
/// those of other leases, whether or not anybody waits. So dropping the returned future, at any
/// point, neither revokes an ack nor leaves the lease renewed.
///
/// Where the store fails, a settlement is repeated for as long as the lease lasts, and then the
/// error is its outcome; the message comes back after its timeout if the settlement did not reach
/// the store. A repeat that finds the lease settled, at a time when nobody else can have had it,
/// finds what the failed call has done, and says [`Applied`](LeaseOutcome::Applied). A call that
/// hangs, which a backend [must not let happen](crate::QueueBackend#for-implementers), is given up
/// when its leases have run out; then the outcome is a [`TimedOut`](ErrorKind::TimedOut).
///
/// # Dropped without a settlement
///
/// The message is ready again after [`RELEASE_DELAY`](Lease::RELEASE_DELAY) instead of after its
/// timeout. As nobody knows what became of it, that counts as an attempt. This works from any
/// thread, in a runtime or not.
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
/// let lease = listener.next().await.expect("not stopped");
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
    /// Claimed, and nobody has seen it.
    Unstarted,
    /// In somebody's hands.
    Open,
    /// There was a settlement.
    Settled,
}

/// How a lease ended: what [`Lease::lost`] resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseEnd {
    /// There was a settlement.
    Settled,
    /// The store said so when it was to be renewed: somebody else has the message, or it was
    /// settled or purged elsewhere.
    Superseded,
    /// It could not be renewed in time, so somebody else may have the message. A settlement still
    /// works if nobody has.
    Expired,
    /// It was renewed for as long as
    /// [`ListenOptions::with_max_lease_time`](super::ListenOptions::with_max_lease_time) allows,
    /// and has run out.
    TimeLimit,
    /// The runtime that renewed it is gone.
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
    /// After how long the message of a lease that was dropped without a settlement is ready again;
    /// or after its visibility timeout, where that is shorter. It is not at once, so that a
    /// handler which fails on every message does not do so without a pause.
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

    /// Marks it as handed out: from now on somebody may have begun to work on it.
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

    /// Which delivery of the message this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.delivery.attempt
    }

    /// How often the message is delivered at most.
    pub fn max_attempts(&self) -> u32 {
        self.delivery.max_attempts
    }

    /// When the message was enqueued, by the backend's clock.
    pub fn enqueued_at(&self) -> SystemTime {
        self.delivery.enqueued_at
    }

    /// The delivery as the backend gave it. Its expiry is that of the claim, before any renewal.
    /// Who settles its receipt by other means should [`detach`](Lease::detach) the lease.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Ends the message for good.
    ///
    /// # Errors
    /// The future's: the store failed until the lease ran out, or for a reason that does not
    /// pass. The message may be gone or come back.
    pub fn ack(self) -> SettleFuture {
        self.settle(Settlement::Ack)
    }

    /// Gives the message up as failed: it is ready again after `delay`.
    ///
    /// # Errors
    /// The future's: as [`ack`](Lease::ack). Where `delay` is longer than the backend allows,
    /// [`InvalidInput`](ErrorKind::InvalidInput), and the lease is released as if dropped.
    pub fn nack(self, delay: Duration) -> SettleFuture {
        self.settle(Settlement::Change(LeaseAction::Nack { delay }))
    }

    /// Makes the message a dead letter, for `reason`, which is cut to [`MAX_REASON_BYTES`].
    ///
    /// # Errors
    /// The future's: as [`ack`](Lease::ack).
    pub fn dead_letter(self, reason: impl Into<String>) -> SettleFuture {
        let reason = cut(reason.into());
        self.settle(Settlement::Change(LeaseAction::DeadLetter { reason }))
    }

    /// Gives the message back unprocessed: it is ready at once, and the attempt does not count.
    ///
    /// # Errors
    /// The future's: as [`ack`](Lease::ack).
    pub fn release(self) -> SettleFuture {
        self.settle(Settlement::Change(LeaseAction::Release))
    }

    /// Lets go of the lease and does nothing to the message: it is not renewed any more, and
    /// whoever holds the receipt of its [`delivery`](Lease::delivery) settles it. If nobody does,
    /// the message comes back after its timeout.
    pub fn detach(self) -> Delivery {
        let delivery = self.delivery.clone();
        self.settle(Settlement::Dismiss);
        delivery
    }

    /// Makes the lease run out `by` from now. Renewal goes on from there, so this is for a lease
    /// that has to outlast a time in which it cannot be renewed, and for one that is to go on
    /// beyond the listener's limit.
    ///
    /// # Errors
    /// The future's: as [`ack`](Lease::ack); and
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the backend does not allow `by`.
    pub fn extend(&self, by: Duration) -> SettleFuture {
        self.extender().extend(by)
    }

    /// Resolves when this process cannot be sure to have the message any more, so that a handler
    /// can stop its side effects; for a lease that is settled, too.
    ///
    /// It does not look at the machine's wall clock: what counts is how long ago, on a monotonic
    /// clock, the call was sent that leased or renewed.
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

    /// Whether [`lost`](Lease::lost) has resolved.
    pub fn is_lost(&self) -> bool {
        self.end.borrow().is_some() || self.end.has_changed().is_err()
    }

    fn settle(mut self, settlement: Settlement) -> SettleFuture {
        self.state = LeaseState::Settled;
        ask(&self.commands, |answer| Command::Settle {
            key: self.key,
            settlement,
            answer: Some(answer),
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let settlement = match self.state {
            LeaseState::Unstarted => Settlement::GiveBackUnstarted,
            LeaseState::Open => Settlement::Release,
            LeaseState::Settled => return,
        };
        // Without a task nobody renews the lease either, so it comes back after its timeout.
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

/// What may be done to a lease by somebody who does not own it.
#[derive(Clone)]
pub(super) struct Extender {
    key: u64,
    /// Weak, so that a handler which leaves this somewhere does not keep the listener's task.
    commands: WeakUnboundedSender<Command>,
    end: watch::Receiver<Option<LeaseEnd>>,
}

impl Extender {
    pub(super) fn extend(&self, by: Duration) -> SettleFuture {
        let key = self.key;
        match self.commands.upgrade() {
            Some(commands) => ask(&commands, |answer| Command::Extend { key, by, answer }),
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

fn ask(
    commands: &UnboundedSender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<LeaseOutcome>>) -> Command,
) -> SettleFuture {
    let (answer, asked) = oneshot::channel();
    // Where there is no task any more, the sender goes with the command, and that is the answer.
    let _ = commands.send(command(answer));
    SettleFuture(asked)
}

/// The outcome of a settlement or an extension: a future. What was asked for is done whether or not
/// this is awaited.
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
                "the listener's task is gone, and with it the renewal of the lease",
            ))
        }))
    }
}

/// The longest prefix of `reason` that a backend takes.
fn cut(mut reason: String) -> String {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}
