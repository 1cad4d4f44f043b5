//! A call that is stopped at one of its await points.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

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
