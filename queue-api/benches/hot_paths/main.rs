//! What this crate adds to each message on its way to a backend and back: the handle, shared
//! round trips, and a worker.
//!
//! ```text
//! cargo bench -p queue-api
//! ```
//!
//! The backend answers at once, so the times are of this crate alone. Everything runs on one
//! thread: what a second one adds is the scheduler's.

mod instant;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::{join_all, try_join_all};
use queue_api::{
    Batching, NewMessage, Queue,
    consumer::{Context, Worker},
};
use tokio::{runtime::Runtime, sync::Notify};

use crate::instant::Instant;

/// How many messages one iteration handles, whoever handles them.
const MESSAGES: u64 = 1024;

criterion_group! {
    name = hot_paths;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = single_calls, enqueues, workers
}
criterion_main!(hot_paths);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

fn direct() -> Queue {
    Queue::new(Arc::new(Instant::new()), "bench").expect("a valid name")
}

fn batching() -> Queue {
    let backend = Batching::new(Arc::new(Instant::new()));
    Queue::new(Arc::new(backend), "bench").expect("a valid name")
}

/// Lease one, ack one.
fn single_calls(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("lease and ack");
    group.throughput(Throughput::Elements(MESSAGES));
    for (name, queue, tasks) in [
        ("direct, 1 task", direct(), 1),
        ("batching, 1 task", batching(), 1),
        ("batching, 32 tasks", batching(), 32),
        ("batching, 256 tasks", batching(), 256),
    ] {
        let work = || async {
            let tasks = (0..tasks).map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    for _ in 0..MESSAGES / tasks {
                        let delivery = queue.lease().await.expect("leased").expect("one");
                        queue.ack(&delivery.receipt).await.expect("acked");
                    }
                })
            });
            try_join_all(tasks).await.expect("no task panics")
        };
        group.bench_function(name, |bencher| bencher.iter(|| runtime.block_on(work())));
    }
}

/// Enqueue one message of 256 bytes.
fn enqueues(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("enqueue");
    group.throughput(Throughput::Elements(MESSAGES));
    let messages: Vec<_> = (0..MESSAGES)
        .map(|_| NewMessage::new(vec![0; 256]))
        .collect();
    for (name, queue) in [
        ("direct, one by one", direct()),
        ("batching, 1024 at once", batching()),
    ] {
        let work = || join_all(messages.iter().map(|message| queue.enqueue(message)));
        group.bench_function(name, |bencher| bencher.iter(|| runtime.block_on(work())));
    }
}

/// A worker whose handler does nothing.
fn workers(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("worker");
    group.throughput(Throughput::Elements(MESSAGES));
    for concurrency in [1, 64] {
        let work = || async {
            let (enough, handled) = (Arc::new(Notify::new()), AtomicU64::new(0));
            let done = enough.clone();
            let handler = move |_: String, _: Context| {
                if handled.fetch_add(1, Ordering::Relaxed) + 1 == MESSAGES {
                    done.notify_one();
                }
                async { Ok::<_, String>(()) }
            };
            let worker = Worker::new(direct(), handler).with_concurrency(concurrency);
            worker.run(enough.notified()).await.expect("valid options")
        };
        let name = format!("concurrency {concurrency}");
        group.bench_function(name, |bencher| bencher.iter(|| runtime.block_on(work())));
    }
}
