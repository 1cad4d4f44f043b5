//! A runtime of this crate's own, for all work with servers.
//!
//! A test may pause the clock of its runtime, end that runtime while other tests use the shared
//! server, or drop a server where there is no runtime.

use std::panic::resume_unwind;
use std::sync::LazyLock;
use std::thread;

use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("the system has a thread and a few file descriptors left")
});

/// Runs work on the dedicated runtime.
///
/// Cancelling the caller does not cancel the work. Its result is dropped then, which takes down
/// a server that was started.
pub(crate) async fn run<T: Send + 'static>(work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    // Not on the worker, which would not drive the runtime while a drop blocks.
    RUNTIME
        .spawn_blocking(|| RUNTIME.block_on(work()))
        .await
        .unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// The same for `Drop`: blocks the caller's thread until the work is done.
pub(crate) fn block<T: Send + 'static>(work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    // `block_on` panics on a thread that already drives a runtime.
    thread::spawn(|| RUNTIME.block_on(work()))
        .join()
        .unwrap_or_else(|panic| resume_unwind(panic))
}
