//! Panics of code from outside this crate, as values.

use std::{
    any::Any,
    future::{Future, poll_fn},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use crate::{Error, ErrorKind, Result, telemetry};

/// Makes a backend call. A panic becomes an error of kind [`Internal`](ErrorKind::Internal).
pub(crate) async fn backend_call<T, F>(
    operation: &'static str,
    call: impl FnOnce() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    caught(call).await.unwrap_or_else(|panic| {
        let message = format!("the backend {panic}");
        Err(Error::new(ErrorKind::Internal, operation, message))
    })
}

/// Calls code of the application whose result does not matter. A panic is logged.
pub(crate) fn isolated(what: &str, call: impl FnOnce()) {
    if let Err(panic) = catch(call) {
        log(what, &panic);
    }
}

/// Logs a panic. The subscriber is code of the application too.
pub(crate) fn log(what: &str, panic: &str) {
    telemetry::log::panicked(what, panic);
}

/// Turns a panic into an error with its message.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(message)
}

/// Runs the future that `start` makes. A panic while it is made, polled or dropped becomes an error
/// with the panic's message.
///
/// Unwind safety is asserted, because a future that panicked is dropped and never polled again.
pub(crate) async fn caught<F: Future>(start: impl FnOnce() -> F) -> Result<F::Output, String> {
    let made = catch(|| Box::pin(start()))?;
    let mut running = DropCaught(Some(made));
    let output = poll_fn(|cx| {
        let future = running.0.as_mut().expect("it is taken after the last poll");
        match catch(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await;
    let dropped = running.drop_now();
    let output = output?;
    dropped.map(|()| output)
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        // Its drop is code of the application too, and could panic again.
        mem::forget(panic);
        "no message"
    };
    format!("panicked: {text}")
}

/// Drops its value and catches a panic of the drop.
struct DropCaught<T>(Option<T>);

impl<T> DropCaught<T> {
    fn drop_now(&mut self) -> Result<(), String> {
        let inner = self.0.take();
        catch(|| drop(inner))
    }
}

impl<T> Drop for DropCaught<T> {
    fn drop(&mut self) {
        if let Err(panic) = self.drop_now() {
            log("the drop of a cancelled future", &panic);
        }
    }
}
