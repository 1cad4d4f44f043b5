//! Panics of code that is not ours, as values.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

/// What a panic said, if it said anything.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "a panic without a message"
    }
}

/// Runs what `start` makes to its end; a panic in making it, in running it or in dropping it,
/// also when this future itself is dropped, is an error that says what the panic said.
///
/// Unwind safety is asserted: what panicked is dropped and never looked at again.
pub(crate) async fn caught<F: Future>(start: impl FnOnce() -> F) -> Result<F::Output, String> {
    let made = catch_unwind(AssertUnwindSafe(|| Box::pin(start()))).map_err(say)?;
    let mut running = DropCaught(Some(made));
    let output = poll_fn(|cx| {
        let future = running.0.as_mut().expect("taken only when it has ended");
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(say(panic))),
        }
    })
    .await;
    let dropped = running.drop_now();
    let output = output?;
    dropped.map(|()| output)
}

fn say(panic: Box<dyn Any + Send>) -> String {
    format!("panicked: {}", message(&*panic))
}

/// Drops what it holds without letting a panic out.
struct DropCaught<T>(Option<T>);

impl<T> DropCaught<T> {
    fn drop_now(&mut self) -> Result<(), String> {
        let inner = self.0.take();
        catch_unwind(AssertUnwindSafe(|| drop(inner))).map_err(say)
    }
}

impl<T> Drop for DropCaught<T> {
    fn drop(&mut self) {
        if let Err(panic) = self.drop_now() {
            tracing::error!(%panic, "while being dropped");
        }
    }
}
