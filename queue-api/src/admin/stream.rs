//! A whole list of a queue, page by page.

use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use futures_core::Stream;

use crate::{
    DeadLetter, Error, ErrorKind, Limits, PageOptions, PageToken, PeekedMessage, QueueAdmin,
    QueueName, Result,
};

/// How many items are in memory, unless the backend's batches are smaller.
const PAGE: usize = 100;

/// The items of a page, and where the next one starts.
type Page<T> = (Vec<T>, Option<PageToken>);

type Call<T> = Pin<Box<dyn Future<Output = Result<Page<T>>> + Send>>;

/// All dead letters of a queue. [`Admin::all_dead_letters`](crate::Admin::all_dead_letters) creates
/// it.
pub type DeadLetterStream = PageStream<DeadLetter>;

/// All live messages of a queue. [`Admin::all_messages`](crate::Admin::all_messages) creates it.
pub type MessageStream = PageStream<PeekedMessage>;

/// All items of a list that is read in pages: a [`DeadLetterStream`] or a [`MessageStream`].
///
/// It reads the next page when the one before has been taken. The first error ends it. Dropping it
/// loses nothing, because reading changes nothing.
///
/// It is a [`Stream`]. Without a crate for streams, call [`next`](PageStream::next).
///
/// ```
/// # use std::sync::Arc;
/// # use queue_api::{Admin, Result};
/// # use queue_memory::MemoryBackend;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let admin = Admin::new(Arc::new(MemoryBackend::new()));
/// let mut letters = admin.all_dead_letters("mail")?;
/// while let Some(letter) = letters.next().await {
///     let letter = letter?;
///     println!("{}: {}", letter.id, letter.reason);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct PageStream<T> {
    list: List<T>,
    backend: Arc<dyn QueueAdmin>,
    queue: QueueName,
    max: usize,
    /// What is left of the current page.
    items: vec::IntoIter<T>,
    state: State<T>,
}

/// A list of a queue, and the call that reads a page of it.
struct List<T> {
    operation: &'static str,
    read: fn(Arc<dyn QueueAdmin>, QueueName, PageOptions) -> Call<T>,
}

enum State<T> {
    /// The page at this token comes next.
    Idle(Option<PageToken>),
    Reading(Option<PageToken>, Call<T>),
    Ended,
}

impl DeadLetterStream {
    pub(super) fn dead_letters(
        backend: Arc<dyn QueueAdmin>,
        queue: QueueName,
        limits: &Limits,
    ) -> Self {
        let list = List {
            operation: "dead letters",
            read: |backend, queue, page| {
                Box::pin(async move {
                    let read = backend.dead_letters(&queue, &page).await?;
                    Ok((read.letters, read.next))
                })
            },
        };
        Self::new(list, backend, queue, limits)
    }
}

impl MessageStream {
    pub(super) fn messages(
        backend: Arc<dyn QueueAdmin>,
        queue: QueueName,
        limits: &Limits,
    ) -> Self {
        let list = List {
            operation: "messages",
            read: |backend, queue, page| {
                Box::pin(async move {
                    let read = backend.messages(&queue, &page).await?;
                    Ok((read.messages, read.next))
                })
            },
        };
        Self::new(list, backend, queue, limits)
    }
}

impl<T: Unpin> PageStream<T> {
    fn new(list: List<T>, backend: Arc<dyn QueueAdmin>, queue: QueueName, limits: &Limits) -> Self {
        Self {
            list,
            backend,
            queue,
            max: limits.max_batch.get().min(PAGE),
            items: Vec::new().into_iter(),
            state: State::Idle(None),
        }
    }

    /// The next item, or `None` after the last one. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<Result<T>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn read(&self, token: Option<PageToken>) -> Call<T> {
        let mut page = PageOptions::new(self.max);
        if let Some(token) = token {
            page = page.with_token(token);
        }
        (self.list.read)(self.backend.clone(), self.queue.clone(), page)
    }

    /// What follows the page at `token`. A backend that returns the same token again would never
    /// end.
    fn after(&self, token: Option<PageToken>, next: Option<PageToken>) -> Result<State<T>> {
        match next {
            None => Ok(State::Ended),
            next if next == token => Err(Error::new(
                ErrorKind::Internal,
                self.list.operation,
                "the backend returned the token of the page that it has just returned",
            )),
            next => Ok(State::Idle(next)),
        }
    }
}

impl<T: Unpin> Stream for PageStream<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        loop {
            if let Some(item) = self.items.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            // Taken out, so that a call that panics is not polled again.
            match mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Idle(token) => {
                    let call = self.read(token.clone());
                    self.state = State::Reading(token, call);
                }
                State::Reading(token, mut call) => {
                    let Poll::Ready(page) = call.as_mut().poll(cx) else {
                        self.state = State::Reading(token, call);
                        return Poll::Pending;
                    };
                    let page = page.and_then(|(items, next)| Ok((items, self.after(token, next)?)));
                    match page {
                        Ok((items, state)) => (self.items, self.state) = (items.into_iter(), state),
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
            }
        }
    }
}

impl<T> fmt::Debug for PageStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageStream")
            .field("list", &self.list.operation)
            .field("queue", &self.queue)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}
