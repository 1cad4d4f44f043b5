//! Futures on a thread and a runtime of their own.
//!
//! Everything this crate does with a server happens here, never on the caller's
//! runtime. A test may then pause its clock (which would let each of our timeouts pass
//! at once), end its runtime while others still use the server, or drop a server where
//! there is no runtime at all.

use std::future::Future;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

/// Runs the future apart and waits for it without blocking the caller's thread.
///
/// A caller that is cancelled does not cancel the future: it runs to its end, and its
/// result is dropped there, which is what takes down a server nobody waits for any more.
pub(crate) async fn run<F>(future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let thread = spawn(async move {
        // The receiver is gone when the caller was cancelled; there is nobody to tell.
        let _ = sender.send(future.await);
    });
    match receiver.await {
        Ok(output) => output,
        Err(_) => match thread.join() {
            Err(panic) => resume_unwind(panic),
            Ok(()) => unreachable!("the sender is used or the thread panicked"),
        },
    }
}

/// Runs the future apart and blocks until it is done: for `Drop`, which cannot await.
pub(crate) fn block<F>(future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn(future)
        .join()
        .unwrap_or_else(|panic| resume_unwind(panic))
}

/// Starts the thread; the future runs on a current-thread runtime in real time.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a current-thread runtime needs a few file descriptors only")
            .block_on(future)
    })
}
