//! A call that is stopped at one of its await points.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use futures::poll;
use tokio::sync::oneshot;

/// Polls `call` at most this often, each time it is woken. Returns `None` if it has not ended by
/// then. The caller drops it or goes on with it.
pub(crate) async fn poll_at_most<F: Future>(
    polls: usize,
    mut call: Pin<&mut F>,
) -> Option<F::Output> {
    let mut polled = 0;
    poll_fn(|cx| {
        polled += 1;
        match call.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled >= polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Awaits a future, and tells when it was polled for the first time.
pub(crate) async fn telling_first_poll<T>(
    future: impl Future<Output = T>,
    polled: oneshot::Sender<()>,
) -> T {
    let mut future = pin!(future);
    let first = poll!(&mut future);
    let _ = polled.send(());
    match first {
        Poll::Ready(output) => output,
        Poll::Pending => future.await,
    }
}
