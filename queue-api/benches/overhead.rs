//! The cost that each layer of this crate adds to a message.
//!
//! ```text
//! cargo bench -p queue-api
//! ```
//!
//! Each run enqueues, leases and acks 1024 messages on a memory backend. The difference between
//! two rows is the cost of a layer.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use queue_api::{
    Batching, LeaseOptions, NewMessage, Queue, QueueBackend,
    consumer::{Context, Worker},
};
use queue_memory::MemoryBackend;
use tokio::{runtime, sync::Notify};

const MESSAGES: u64 = 1024;
const TASKS: u64 = 32;

criterion_group!(overhead, layers);
criterion_main!(overhead);

fn layers(criterion: &mut Criterion) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let backend: Arc<dyn QueueBackend> = Arc::new(MemoryBackend::new());
    let queue = Queue::new(backend.clone(), "direct").expect("a valid name");
    let batching = Arc::new(Batching::new(backend));
    let batching = Queue::new(batching, "batching").expect("a valid name");

    let mut group = criterion.benchmark_group("overhead");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("backend", |bencher| {
        bencher.iter(|| runtime.block_on(through_backend(&queue)));
    });
    group.bench_function("queue", |bencher| {
        bencher.iter(|| runtime.block_on(through_queue(&queue, MESSAGES)));
    });
    group.bench_function("queue, 32 tasks", |bencher| {
        bencher.iter(|| runtime.block_on(by_tasks(&queue)));
    });
    group.bench_function("batching, 32 tasks", |bencher| {
        bencher.iter(|| runtime.block_on(by_tasks(&batching)));
    });
    group.bench_function("worker", |bencher| {
        bencher.iter(|| runtime.block_on(by_worker(&queue)));
    });
}

fn message() -> NewMessage {
    NewMessage::new(format!("\"{}\"", "x".repeat(254))) // JSON, for the worker
}

async fn through_backend(queue: &Queue) {
    let (backend, name) = (queue.backend(), queue.name());
    for _ in 0..MESSAGES {
        backend.enqueue(name, &[message()]).await.expect("stored");
        let leased = backend.lease(name, &LeaseOptions::new(1)).await;
        let delivery = leased.expect("leased").remove(0);
        let acked = backend.ack(name, &[delivery.receipt]).await;
        acked.expect("acked");
    }
}

async fn through_queue(queue: &Queue, messages: u64) {
    for _ in 0..messages {
        queue.enqueue(&message()).await.expect("stored");
        let delivery = queue.lease().await.expect("leased").expect("one");
        assert!(
            queue
                .ack(&delivery.receipt)
                .await
                .expect("acked")
                .is_applied()
        );
    }
}

async fn by_tasks(queue: &Queue) {
    let task = |_| {
        let queue = queue.clone();
        tokio::spawn(async move { through_queue(&queue, MESSAGES / TASKS).await })
    };
    for done in join_all((0..TASKS).map(task)).await {
        done.expect("no task panics");
    }
}

async fn by_worker(queue: &Queue) {
    for _ in 0..MESSAGES {
        queue.enqueue(&message()).await.expect("stored");
    }
    let (finished, handled) = (Arc::new(Notify::new()), AtomicU64::new(0));
    let shutdown = finished.clone();
    let handler = move |_: String, _: Context| {
        if handled.fetch_add(1, Ordering::Relaxed) + 1 == MESSAGES {
            shutdown.notify_one();
        }
        async { Ok::<_, String>(()) }
    };
    let worker = Worker::new(queue.clone(), handler);
    worker
        .run(finished.notified())
        .await
        .expect("valid options");
}
