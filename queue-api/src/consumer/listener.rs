//! A queue as a stream of leases.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};

use super::{
    Lease, ListenOptions,
    inbox::{Inbox, Next},
    listener_task::{Command, ListenerTask, ProbeAnswer},
};
use crate::{Error, Queue, Result, telemetry};

impl Queue {
    /// Listens: a stream of leases, as many at a time as the options say.
    ///
    /// **This spawns one task on the current tokio runtime**, which claims, renews and settles
    /// for this listener, and which ends when the listener and all its leases are gone.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the concurrency is 0 or the
    /// visibility timeout outside the backend's limits.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn listen(&self, options: ListenOptions) -> Result<Listener> {
        let invalid = |wrong| Error::invalid("listen", wrong);
        if options.concurrency == 0 {
            let wrong = "a concurrency of 0, at least 1 is needed".to_owned();
            return Err(invalid(wrong));
        }
        if let Some(timeout) = options.visibility_timeout {
            self.limits().check_visibility(timeout).map_err(invalid)?;
        }
        let (commands, receiver) = mpsc::unbounded_channel();
        let inbox = Arc::new(Inbox::default());
        let task = ListenerTask::new(
            self.clone(),
            options,
            receiver,
            commands.downgrade(),
            inbox.clone(),
        );
        tokio::spawn(task.run());
        Ok(Listener {
            queue: self.clone(),
            commands,
            inbox,
        })
    }
}

/// The messages of a queue as they come, each in a [`Lease`]; made by [`Queue::listen`].
///
/// It is a [`Stream`] that ends only when it is stopped, and it has a [`next`](Listener::next) of
/// its own for those who need no combinators.
///
/// - **It claims what can start now.** A claim is sent when somebody polls the stream and there
///   is nothing to hand out, for as many messages as there is room for: the concurrency minus the
///   leases that have no settlement yet. A stream that nobody polls claims nothing; one that is not
///   polled any more holds what it had claimed, and keeps it renewed.
/// - **It waits** while the queue is empty, by the backend's
///   [`wait`](crate::QueueBackend::wait), and pauses with jitter where others are faster again
///   and again.
/// - **It survives the store.** An error is logged, counted
///   ([`STORE_ERRORS`](crate::metrics::STORE_ERRORS)) and given to the
///   [hook](ListenOptions::with_error_hook), and the call is repeated after a pause that grows to
///   ten seconds, with jitter. An error that does not pass by itself, such as a refused password,
///   is treated the same, but for the pause, which is the longest at once: who mends it need not
///   restart the consumers.
/// - **It stops** by [`stop`](Listener::stop) or by being dropped. Nothing new is claimed from
///   then on; what was claimed and not handed out, also by a call that is under way, is given
///   back at once and does not cost an attempt. Leases that were handed out live on and are
///   renewed.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::{NewMessage, Queue, consumer::ListenOptions};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> queue_api::Result<()> {
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "numbers")?;
/// for number in ["1", "2", "3"] {
///     queue.enqueue(&NewMessage::new(number)).await?;
/// }
///
/// let mut listener = queue.listen(ListenOptions::new(2))?;
/// while let Some(lease) = listener.next().await {
///     if lease.payload() == "2" {
///         listener.stop().await; // whatever is not handed out goes back
///     }
///     lease.ack().await?;
/// }
/// assert_eq!(queue.stats().await?.ready, 1);
/// # Ok(())
/// # }
/// ```
pub struct Listener {
    queue: Queue,
    commands: mpsc::UnboundedSender<Command>,
    inbox: Arc<Inbox>,
}

impl Listener {
    /// The next lease; `None` when the listener was stopped. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<Lease> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Ends the stream, now: the call does it, and the future resolves when what was claimed and
    /// not handed out has been given back. Where the store fails, that is tried for as long as
    /// those leases last. A lease call that is under way is waited for, so this takes as long as
    /// the backend lets a call take (see [for implementers](crate::QueueBackend#for-implementers)).
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        self.inbox.close();
        self.tell_and_wait(Command::Stop)
    }

    /// Stops, and waits until every lease that was handed out has been settled or dropped, and
    /// the store told.
    pub async fn drain(self) {
        self.stop().await;
        self.tell_and_wait(Command::Drain).await;
    }

    fn tell_and_wait(
        &self,
        command: fn(oneshot::Sender<()>) -> Command,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (done, waiting) = oneshot::channel();
        // Where there is no task any more, the sender goes with the command, and there is nothing
        // to wait for.
        let _ = self.commands.send(command(done));
        async move {
            let _ = waiting.await;
        }
    }

    /// Asks the store once more whether anything is ready, and leases it if so.
    pub(super) fn probe(&self) -> impl Future<Output = ProbeAnswer> + Send + use<> {
        let (probe, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Probe(probe));
        async move { answer.await.unwrap_or(ProbeAnswer::NothingReady) }
    }
}

impl Stream for Listener {
    type Item = Lease;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lease>> {
        loop {
            match self.inbox.next(cx) {
                // It ran out while nobody read; who took it up would work beside somebody else.
                Next::Lease(lease) if lease.is_lost() => drop(lease),
                Next::Lease(mut lease) => {
                    lease.hand_out();
                    telemetry::consumer::handed_out(self.queue.name(), lease.delivery());
                    return Poll::Ready(Some(lease));
                }
                Next::Closed => return Poll::Ready(None),
                Next::Drained => {
                    let _ = self.commands.send(Command::Demand);
                    return Poll::Pending;
                }
                Next::Empty => return Poll::Pending,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
