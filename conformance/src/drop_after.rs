//! Breaking a call off at one of its await points.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Polls a future so many times and then gives up on it: `None`. Dropping this drops a pinned
/// borrow only, so the caller drops the future right afterwards.
pub(crate) struct DropAfter<'a, F> {
    future: Pin<&'a mut F>,
    polls_left: usize,
}

impl<'a, F: Future> DropAfter<'a, F> {
    /// At least one poll: a future that was never polled has done nothing.
    pub(crate) fn new(future: Pin<&'a mut F>, polls: usize) -> Self {
        Self {
            future,
            polls_left: polls,
        }
    }
}

impl<F: Future> Future for DropAfter<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls_left -= 1;
        let last = self.polls_left == 0;
        match self.future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if last => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
