//! All dead letters of a queue, page by page.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    vec,
};

use futures_core::Stream;

use crate::{
    DeadLetter, DeadLetterPage, Error, ErrorKind, Limits, PageOptions, PageToken, QueueAdmin,
    QueueName, Result,
};

/// How many dead letters are in memory, unless the backend's batches are smaller.
const PAGE: usize = 100;

type Call = Pin<Box<dyn Future<Output = Result<DeadLetterPage>> + Send>>;

/// All dead letters of a queue. [`Admin::all_dead_letters`](crate::Admin::all_dead_letters) creates
/// it.
///
/// It reads the next page when the one before has been taken. The first error ends it. Dropping it
/// loses nothing, because reading changes nothing.
///
/// It is a [`Stream`]. Without a crate for streams, call [`next`](DeadLetterStream::next).
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
pub struct DeadLetterStream {
    backend: Arc<dyn QueueAdmin>,
    queue: QueueName,
    max: usize,
    /// What is left of the current page.
    letters: vec::IntoIter<DeadLetter>,
    state: State,
}

enum State {
    /// The page at this token comes next.
    Idle(Option<PageToken>),
    Reading(Option<PageToken>, Call),
    Ended,
}

impl DeadLetterStream {
    pub(crate) fn new(backend: Arc<dyn QueueAdmin>, queue: QueueName, limits: &Limits) -> Self {
        Self {
            backend,
            queue,
            max: limits.max_batch.get().min(PAGE),
            letters: Vec::new().into_iter(),
            state: State::Idle(None),
        }
    }

    /// The next dead letter, or `None` after the last one. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<Result<DeadLetter>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn read(&self, token: Option<PageToken>) -> Call {
        let (backend, queue) = (self.backend.clone(), self.queue.clone());
        let mut page = PageOptions::new(self.max);
        if let Some(token) = token {
            page = page.with_token(token);
        }
        Box::pin(async move { backend.dead_letters(&queue, &page).await })
    }

    /// What follows the page at `token`. A backend that returns the same token again would never
    /// end.
    fn after(token: Option<PageToken>, next: Option<PageToken>) -> Result<State> {
        match next {
            None => Ok(State::Ended),
            next if next == token => Err(Error::new(
                ErrorKind::Internal,
                "dead letters",
                "the backend returned the token of the page that it has just returned",
            )),
            next => Ok(State::Idle(next)),
        }
    }
}

impl Stream for DeadLetterStream {
    type Item = Result<DeadLetter>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<DeadLetter>>> {
        loop {
            if let Some(letter) = self.letters.next() {
                return Poll::Ready(Some(Ok(letter)));
            }
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Idle(token) => {
                    let token = token.take();
                    let call = self.read(token.clone());
                    self.state = State::Reading(token, call);
                }
                State::Reading(token, call) => {
                    let page = ready!(call.as_mut().poll(cx));
                    let token = token.take();
                    self.state = State::Ended;
                    let page = page.and_then(|page| {
                        let state = Self::after(token, page.next)?;
                        Ok((page.letters, state))
                    });
                    match page {
                        Ok((letters, state)) => {
                            (self.letters, self.state) = (letters.into_iter(), state);
                        }
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
            }
        }
    }
}

impl fmt::Debug for DeadLetterStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterStream")
            .field("queue", &self.queue)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}
