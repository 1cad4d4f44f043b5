//! Work that ends with its lease.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{self, Poll, ready},
};

use pin_project::pin_project;

use super::{Context, Lease, LeaseEnd};

/// Runs a future while a lease is kept: [`Lease::hold`] or [`Context::hold`].
///
/// The output is that of the future, or how the lease ended before that. Then the future is dropped,
/// so no side effect follows while another consumer may have the message.
///
/// **Cancel safety.** The inner future is dropped at an await point: when the lease ends, and when you
/// drop this. So hold only what may stop there. Dropping this does not settle the lease: it is still
/// yours, and is renewed until you settle it or drop it.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use queue_api::{NewMessage, Queue, consumer::ListenOptions};
/// # use queue_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> queue_api::Result<()> {
/// # let queue = Queue::new(Arc::new(MemoryBackend::new()), "uploads")?;
/// # async fn upload(_: &[u8]) -> std::io::Result<()> { Ok(()) }
/// queue.enqueue(&NewMessage::new("a file")).await?;
/// let mut listener = queue.listen(ListenOptions::new(1))?;
/// let lease = listener.next().await.expect("not stopped");
///
/// match lease.hold(upload(lease.payload())).await {
///     Ok(Ok(())) => assert!(lease.ack().await?.is_applied()),
///     Ok(Err(_)) => drop(lease.nack(Duration::from_secs(10)).await?),
///     Err(_ended) => {} // another consumer may have the message
/// }
/// # assert_eq!(queue.stats().await?.ready, 0);
/// # Ok(())
/// # }
/// ```
#[pin_project]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Hold<F> {
    /// `None` after the end.
    #[pin]
    future: Option<F>,
    ended: Pin<Box<dyn Future<Output = LeaseEnd> + Send>>,
}

impl Lease {
    /// Runs `future` while this lease is kept. If the lease ends first, the output is how, and `future`
    /// is dropped: see [`Hold`].
    pub fn hold<F: Future>(&self, future: F) -> Hold<F> {
        Hold::new(future, self.ended())
    }
}

impl Context {
    /// Runs `future` while the lease is kept. If the lease ends first, the output is how, and `future`
    /// is dropped: see [`Hold`].
    pub fn hold<F: Future>(&self, future: F) -> Hold<F> {
        Hold::new(future, self.ended())
    }
}

impl<F: Future> Hold<F> {
    fn new(future: F, ended: impl Future<Output = LeaseEnd> + Send + 'static) -> Self {
        Self {
            future: Some(future),
            ended: Box::pin(ended),
        }
    }
}

impl<F: Future> Future for Hold<F> {
    type Output = Result<F::Output, LeaseEnd>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let future = this.future.as_mut().as_pin_mut();
        let future = future.expect("it is not polled after it was ready");
        // The end first: after it, the future must not go on.
        let output = match this.ended.as_mut().poll(cx) {
            Poll::Ready(end) => Err(end),
            Poll::Pending => Ok(ready!(future.poll(cx))),
        };
        this.future.set(None);
        Poll::Ready(output)
    }
}

impl<F> fmt::Debug for Hold<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}
