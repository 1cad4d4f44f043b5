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
use crate::{
    Error, ErrorKind, InvalidInput, Queue, Result,
    catch_panic::{caught, log},
    telemetry,
};

impl Queue {
    /// Returns a stream of leases.
    ///
    /// **This spawns one task on the current tokio runtime.** It claims, renews and settles for
    /// this listener. It ends when the listener and all its leases are gone.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the concurrency is 0, or the visibility
    /// timeout is 0 or exceeds the backend's limits.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn listen(&self, options: ListenOptions) -> Result<Listener> {
        let invalid = |wrong| Error::invalid_value("listen", wrong);
        if options.concurrency == 0 {
            return Err(invalid(InvalidInput::new("concurrency", "0", "at least 1")));
        }
        if let Some(timeout) = options.visibility_timeout {
            if timeout.is_zero() {
                let wrong = InvalidInput::new("visibility timeout", "0ns", "longer than 0");
                return Err(invalid(wrong));
            }
            self.limits().check_visibility(timeout).map_err(invalid)?;
        }
        let (commands, receiver) = mpsc::unbounded_channel();
        let inbox = Arc::new(Inbox::default());
        let mut task = ListenerTask::new(
            self.clone(),
            options,
            receiver,
            commands.downgrade(),
            inbox.clone(),
        );
        let task_inbox = inbox.clone();
        tokio::spawn(async move {
            if let Err(panic) = caught(|| task.run()).await {
                log("the task of a listener", &panic);
                // Before the drop of the task ends the stream.
                task_inbox.set_panic(panic);
            }
        });
        Ok(Listener {
            queue: self.clone(),
            commands,
            inbox,
        })
    }
}

/// A stream of a queue's messages, each in a [`Lease`]. [`Queue::listen`] makes it.
///
/// The [`Stream`] ends when you stop the listener. Otherwise it ends only if its runtime shuts down
/// or has no timer. [`next`](Listener::next) works without stream combinators.
///
/// - **Claims**: when you poll the stream and no lease is buffered, the listener claims messages.
///   It claims at most the concurrency minus the leases that are not settled. Without a poll it
///   claims nothing, but it keeps renewing the leases that it holds.
/// - **Empty queues**: the listener calls the backend's [`wait`](crate::QueueBackend::wait). If
///   waits keep ending without a message, because other consumers are faster, it pauses with
///   jitter.
/// - **Errors of the store**: the listener logs the error, counts it
///   ([`STORE_ERRORS`](crate::metrics::STORE_ERRORS)) and calls the
///   [hook](ListenOptions::with_error_hook). It repeats the call after a pause with jitter, which
///   grows to 10 seconds. After an error that does not pass by itself, such as a wrong password,
///   the pause is 10 seconds at once. You need not restart consumers when it is fixed.
/// - **Stop**: [`stop`](Listener::stop), or drop the listener. It claims nothing more. It releases
///   leases that were not handed out, including those of a call in flight, and their attempt does
///   not count. Leases that were handed out are still renewed.
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
///         listener.stop().await; // releases what is not handed out
///     }
///     assert!(lease.ack().await?.is_applied());
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
    /// The next lease, or `None` after the end of the stream. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<Lease> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Waits for the next lease, and takes those that are there with it: `max` at most. `None` after
    /// the end of the stream. Dropping this future loses nothing.
    ///
    /// It does not wait for more, so a batch may be of one. A batch is never larger than the
    /// listener's concurrency. If `max` is 0, it counts as 1.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use queue_api::{NewMessage, Queue, consumer::ListenOptions};
    /// # use queue_memory::MemoryBackend;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> queue_api::Result<()> {
    /// # let queue = Queue::new(Arc::new(MemoryBackend::new()), "rows")?;
    /// queue.enqueue_batch(&["a", "b", "c"].map(NewMessage::new)).await?;
    /// let mut listener = queue.listen(ListenOptions::new(100))?;
    /// let rows = listener.next_batch(100).await.expect("not stopped");
    /// assert_eq!(rows.len(), 3);
    /// // … insert all rows in one statement …
    /// let acks: Vec<_> = rows.into_iter().map(|lease| lease.ack()).collect(); // one call
    /// for ack in acks {
    ///     assert!(ack.await?.is_applied());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_batch(&mut self, max: usize) -> Option<Vec<Lease>> {
        let mut batch = vec![self.next().await?];
        while batch.len() < max
            && let Some(lease) = self.inbox.take()
        {
            batch.extend(self.hand_out(lease));
        }
        Some(batch)
    }

    /// `None` if the lease ended in the inbox, so that another consumer may have the message.
    fn hand_out(&self, mut lease: Lease) -> Option<Lease> {
        if lease.is_ended() {
            return None;
        }
        lease.hand_out();
        telemetry::consumer::handed_out(self.queue.name(), lease.delivery());
        Some(lease)
    }

    /// Ends the stream at once. The future resolves when leases that were not handed out are
    /// released.
    ///
    /// If the store fails, the releases are repeated while those leases last. The future also waits
    /// for a lease call in flight, so it takes as long as the backend lets a call take, but at most 70
    /// seconds (see [for implementers](crate::QueueBackend#for-implementers)).
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        self.inbox.close();
        self.send_and_wait(Command::Stop)
    }

    /// Stops, and waits until all leases are settled or dropped and the store has answered.
    pub async fn drain(self) {
        self.stop().await;
        self.drained().await;
    }

    fn send_and_wait(
        &self,
        command: fn(oneshot::Sender<()>) -> Command,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (done, waiting) = oneshot::channel();
        // If the task is gone, the sender is dropped with the command, and this returns.
        let _ = self.commands.send(command(done));
        async move {
            let _ = waiting.await;
        }
    }

    /// Resolves when all leases are settled or dropped, after a stop.
    pub(super) fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        self.send_and_wait(Command::Drain)
    }

    /// Fails all settlements that the store has not confirmed. From now on a drain does not wait for
    /// a lease call in flight. The task releases what that call leases.
    pub(super) fn give_up(&self) {
        let _ = self.commands.send(Command::GiveUp);
    }

    /// Makes one more lease call, and returns whether it leased anything. `None` if the task has
    /// ended.
    pub(super) fn probe(&self) -> impl Future<Output = Option<ProbeAnswer>> + Send + use<> {
        let (probe, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Probe(probe));
        async move { answer.await.ok() }
    }

    /// Why the stream ended although it was not stopped.
    pub(super) fn failure(&self) -> Error {
        let why = match self.inbox.panic() {
            Some(panic) => format!("the listener's task {panic}"),
            None => "the listener's task has ended: its tokio runtime has shut down".to_owned(),
        };
        Error::new(ErrorKind::Internal, "listen", why)
    }
}

impl Stream for Listener {
    type Item = Lease;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lease>> {
        loop {
            match self.inbox.next(cx) {
                Next::Lease(lease) => {
                    if let Some(lease) = self.hand_out(lease) {
                        return Poll::Ready(Some(lease));
                    }
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
