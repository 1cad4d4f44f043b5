//! A backend that is used from two runtimes, of which one stops.

use std::{thread, time::Duration};

use mongodb_test_server::documentdb::Engines;
use queue_api::Queue;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::timeout,
};

use crate::{
    fixture::{Fixture, MINUTE, applied, message, queue_of},
    waking::{STREAMING, open_stream},
};

tests! {
    without_runtime:
        a_wait_does_not_depend_on_a_stream_whose_runtime_has_stopped
}

/// Less than the pause between two looks while a change stream is open.
const LIMIT: Duration = Duration::from_secs(10);

/// How the other runtime stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// It is dropped, with its tasks.
    Dropped,
    /// Nothing drives it any more, and its tasks stay.
    NotDriven,
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A wait in another runtime, where its stream is read, until `end` is sent. Then that stops.
fn wait_elsewhere(queue: Queue, stop: Stop, end: oneshot::Receiver<()>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let other = Builder::new_current_thread().enable_all().build().unwrap();
        other.block_on(async {
            tokio::select! {
                ended = queue.wait(60 * MINUTE) => panic!("nothing is ready: {ended:?}"),
                _ = end => {}
            }
        });
        match stop {
            Stop::Dropped => drop(other),
            Stop::NotDriven => std::mem::forget(other),
        }
    })
}

/// The wait may begin before or after the other runtime stops.
fn a_wait_does_not_depend_on_a_stream_whose_runtime_has_stopped() {
    for stop in [Stop::Dropped, Stop::NotDriven] {
        for is_first in [true, false] {
            runtime().block_on(check(stop, is_first));
        }
    }
}

async fn check(stop: Stop, is_first: bool) {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    let backend = fixture.streaming().connect().await.unwrap();
    let queue = queue_of(&backend);
    let wait = || {
        let queue = queue.clone();
        tokio::spawn(async move { queue.wait(60 * MINUTE).await })
    };
    let (end, ended) = oneshot::channel();
    let elsewhere = wait_elsewhere(queue.clone(), stop, ended);
    open_stream(&fixture).await;
    let first = is_first.then(wait);
    // Round trips, in which that looks at the queue.
    for _ in 0..20 {
        queue.stats().await.unwrap();
    }
    end.send(()).unwrap();
    let stopped = tokio::task::spawn_blocking(|| elsewhere.join()).await;
    stopped.unwrap().unwrap();
    let waiting = first.unwrap_or_else(wait);

    fixture.queue().enqueue(&message("a")).await.unwrap();
    let woken = timeout(LIMIT, waiting).await;
    let woken = woken.unwrap_or_else(|_| panic!("{stop:?}, {is_first}: not woken"));
    woken.unwrap().unwrap();
    let leased = queue.lease().await.unwrap().expect("ready");
    applied(queue.ack(&leased.receipt)).await;
}
