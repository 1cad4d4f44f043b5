//! Workers in runtimes that end, that lack a timer, and in none.

use std::{
    future::{pending, ready},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures::{FutureExt, executor::block_on, poll};
use queue_api::{
    ErrorKind, NewMessage, Queue,
    consumer::{Context, Failure, Handler, Worker},
};
use queue_memory::MemoryBackend;
use tokio::runtime::Builder;

fn queue() -> Queue {
    Queue::new(Arc::new(MemoryBackend::new()), "q").unwrap()
}

fn worker(queue: &Queue) -> Worker<String, impl Handler<String>> {
    Worker::new(queue.clone(), |_: String, _: Context| async {
        Ok::<_, Failure>(())
    })
}

#[test]
fn a_runtime_that_shuts_down_is_an_error_of_the_run() {
    let gone = Builder::new_current_thread().enable_time().build().unwrap();
    let stays = Builder::new_current_thread().enable_time().build().unwrap();
    let worker = worker(&queue());
    let mut running = Box::pin(worker.run(pending::<()>()));
    gone.block_on(async { assert!(poll!(&mut running).is_pending()) });
    gone.shutdown_background();
    let error = stays.block_on(running).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let text = error.to_string();
    assert!(text.contains("its tokio runtime has shut down"), "{text}");

    let gone = Builder::new_current_thread().enable_time().build().unwrap();
    let mut running = Box::pin(worker.run_until_idle());
    gone.block_on(async { assert!(poll!(&mut running).is_pending()) });
    gone.shutdown_background();
    let error = stays.block_on(running).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn a_runtime_without_a_timer_is_an_error_of_the_run() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let queue = queue();
    block_on(queue.enqueue(&NewMessage::new("\"text\""))).unwrap();
    let error = runtime.block_on(worker(&queue).run(pending::<()>()));
    let text = error.unwrap_err().to_string();
    assert!(text.contains("timers are disabled"), "{text}");

    // Also if it is to shut down before it has begun.
    let error = runtime.block_on(worker(&queue).run(ready(())));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("timers are disabled"), "{error}");
}

#[test]
fn a_run_outside_a_runtime_panics() {
    let worker = worker(&queue());
    let run = AssertUnwindSafe(worker.run(pending::<()>())).catch_unwind();
    assert!(block_on(run).is_err());
    let run = AssertUnwindSafe(worker.run_until_idle()).catch_unwind();
    assert!(block_on(run).is_err());
}
