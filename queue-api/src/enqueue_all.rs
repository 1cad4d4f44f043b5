//! Enqueues a stream of messages in batches.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    vec,
};

use futures_core::Stream;
use pin_project::pin_project;

use crate::{EnqueueOutcome, Error, MessageId, NewMessage, Queue, Result};

/// The bytes of a batch, unless one message alone is larger.
const MAX_BATCH_BYTES: usize = 4 << 20;

type Call = Pin<Box<dyn Future<Output = (Vec<NewMessage>, Result<Vec<EnqueueOutcome>>)> + Send>>;

/// Enqueues a stream of messages in batches. [`Queue::enqueue_all`] creates it.
///
/// It is a [`Stream`] of outcomes, one for each message, in the order of the messages. Without a
/// crate for streams, call [`next`](EnqueueAll::next).
///
/// **Batches.** It takes messages until the batch is full, or until the inner stream has nothing
/// ready. Then it sends the batch at once; there is no timer. A batch is full at the backend's
/// [`max_batch`](crate::Limits::max_batch) messages, or at 4 MiB. One larger message is a batch of
/// its own.
///
/// **Back-pressure.** There is one batch at a time. It takes no more messages before the batch is
/// stored and you have taken its outcomes. So an endless stream uses the memory of one batch and one
/// message.
///
/// **Errors.** An error does not end the stream. It hands back the messages that may not be stored,
/// as a [`FailedBatch`], and the next poll goes on with the messages after them. A message that
/// exceeds the limits fails alone.
///
/// **Cancellation.** Nothing is taken or sent unless you poll. You can drop the future of
/// [`next`](EnqueueAll::next) at any time; that loses nothing. If you drop the stream itself, a batch
/// in flight may be stored or not, and the messages that it has taken and not sent are dropped. All
/// messages whose outcome you have seen are stored.
///
/// **Panics.** A panic of the inner stream reaches you. If you poll again, the messages before it are
/// sent, and then this stream ends. A panic of the backend reaches you too; its batch may be stored or
/// not.
///
/// ```
/// use std::sync::Arc;
/// use futures::stream;
/// use queue_api::{EnqueueOutcome, NewMessage, Queue};
/// use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "invoices")?;
/// let invoices = stream::iter((0..2500).map(|n| NewMessage::new(n.to_string())));
///
/// let mut enqueued = queue.enqueue_all(invoices);
/// let mut count = 0;
/// while let Some(stored) = enqueued.next().await {
///     assert_eq!(stored?.outcome, EnqueueOutcome::Stored);
///     count += 1;
/// }
/// assert_eq!(count, 2500); // in three batches
/// # Ok(())
/// # }
/// ```
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct EnqueueAll<S> {
    queue: Queue,
    #[pin]
    messages: S,
    /// The inner stream has ended or panicked, and must not be polled.
    ended: bool,
    batch: Batch,
    /// It did not fit into the batch, or it is not valid. It comes after the batch.
    held: Option<NewMessage>,
    call: Option<Call>,
    outcomes: Outcomes,
}

#[derive(Default)]
struct Batch {
    messages: Vec<NewMessage>,
    bytes: usize,
}

type Outcomes = std::iter::Zip<vec::IntoIter<NewMessage>, vec::IntoIter<EnqueueOutcome>>;

/// The outcome of one message of [`EnqueueAll`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enqueued {
    /// The message's id.
    pub id: MessageId,
    /// Whether it was new.
    pub outcome: EnqueueOutcome,
}

/// The messages of a batch that failed, and why. Any of them may be stored.
///
/// To repeat it safely, enqueue the same messages again. `?` converts it to an [`Error`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedBatch {
    /// The messages, with the defaults of the handle.
    pub messages: Vec<NewMessage>,
    /// Why they failed.
    pub error: Error,
}

impl fmt::Display for FailedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.messages.len();
        write!(f, "a batch of {count} messages may not be stored")
    }
}

impl StdError for FailedBatch {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.error)
    }
}

impl From<FailedBatch> for Error {
    fn from(failed: FailedBatch) -> Self {
        failed.error
    }
}

impl Queue {
    /// Enqueues all messages of a stream in batches: see [`EnqueueAll`].
    pub fn enqueue_all<S: Stream<Item = NewMessage>>(&self, messages: S) -> EnqueueAll<S> {
        EnqueueAll {
            queue: self.clone(),
            messages,
            ended: false,
            batch: Batch::default(),
            held: None,
            call: None,
            outcomes: Vec::new().into_iter().zip(Vec::new()),
        }
    }
}

impl<S: Stream<Item = NewMessage> + Unpin> EnqueueAll<S> {
    /// The next outcome, or `None` after the last one. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Enqueued, FailedBatch>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Batch {
    /// Adds the message, unless it does not fit.
    fn add(&mut self, message: NewMessage, most: usize) -> Option<NewMessage> {
        let bytes = message.payload.len() + message.header_bytes() + message.id.as_str().len();
        let fits = self.messages.len() < most && self.bytes + bytes <= MAX_BATCH_BYTES;
        if !fits && !self.messages.is_empty() {
            return Some(message);
        }
        self.bytes += bytes;
        self.messages.push(message);
        None
    }

    fn take(&mut self) -> Vec<NewMessage> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }
}

impl<S: Stream<Item = NewMessage>> EnqueueAll<S> {
    /// Fills the batch, until it is full or nothing is ready. Pending if there is nothing to send.
    fn fill(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let (limits, mut messages) = (this.queue.limits(), this.messages);
        let most = limits.max_batch.get();
        while this.held.is_none() && this.batch.messages.len() < most && !*this.ended {
            // It stays so if the stream panics.
            *this.ended = true;
            let polled = messages.as_mut().poll_next(cx);
            *this.ended = false;
            match polled {
                Poll::Ready(Some(mut message)) => {
                    this.queue.defaults.fill(&mut message);
                    let is_valid = limits.check_messages(std::slice::from_ref(&message));
                    *this.held = match is_valid {
                        Ok(()) => this.batch.add(message, most),
                        Err(_) => Some(message),
                    };
                }
                Poll::Ready(None) => *this.ended = true,
                Poll::Pending if this.batch.messages.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: Stream<Item = NewMessage>> Stream for EnqueueAll<S> {
    type Item = Result<Enqueued, FailedBatch>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Enqueued, FailedBatch>>> {
        loop {
            let this = self.as_mut().project();
            if let Some((message, outcome)) = this.outcomes.next() {
                let id = message.id;
                return Poll::Ready(Some(Ok(Enqueued { id, outcome })));
            }
            // Taken out, so that a call that panics is not polled again.
            if let Some(mut call) = this.call.take() {
                let Poll::Ready((messages, answer)) = call.as_mut().poll(cx) else {
                    *this.call = Some(call);
                    return Poll::Pending;
                };
                match answer {
                    Ok(outcomes) => *this.outcomes = messages.into_iter().zip(outcomes),
                    Err(error) => return Poll::Ready(Some(Err(FailedBatch { messages, error }))),
                }
                continue;
            }
            if this.batch.messages.is_empty()
                && let Some(message) = this.held.take()
            {
                let checked = this
                    .queue
                    .limits()
                    .check_messages(std::slice::from_ref(&message));
                if let Err(error) = checked {
                    let messages = vec![message];
                    return Poll::Ready(Some(Err(FailedBatch { messages, error })));
                }
                *this.held = this.batch.add(message, usize::MAX);
            }
            ready!(self.as_mut().fill(cx));
            let this = self.as_mut().project();
            let messages = this.batch.take();
            if messages.is_empty() && this.held.is_none() {
                return Poll::Ready(None);
            }
            if !messages.is_empty() {
                let queue = this.queue.clone();
                *this.call = Some(Box::pin(async move {
                    let answer = queue.enqueue_batch(&messages).await;
                    (messages, answer)
                }));
            }
        }
    }
}

impl<S> fmt::Debug for EnqueueAll<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnqueueAll")
            .field("queue", &self.queue)
            .field("in_flight", &self.call.is_some())
            .finish_non_exhaustive()
    }
}
