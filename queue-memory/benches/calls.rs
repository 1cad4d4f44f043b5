//! What enqueue, lease and ack cost for each message: one at a time and in batches, by the handle
//! and by the bare backend.
//!
//! `cargo bench -p queue-memory`

use std::{
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use queue_api::{Bytes, LeaseOptions, NewMessage, Queue, QueueBackend, QueueName, Receipt};
use queue_memory::MemoryBackend;

/// How many calls of one kind are measured together, so that reading the clock does not count.
const CALLS: usize = 100;

/// The result of a call in memory, which waits for nothing and so needs no runtime.
fn done<T>(call: impl Future<Output = queue_api::Result<T>>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.expect("a call in memory succeeds"),
        Poll::Pending => unreachable!("nothing in memory is waited for"),
    }
}

trait Subject {
    fn enqueue(&self, messages: &[NewMessage]);
    fn lease(&self, messages: usize) -> Vec<Receipt>;
    fn ack(&self, receipts: &[Receipt]);
}

struct Bare(MemoryBackend, QueueName);

impl Subject for Bare {
    fn enqueue(&self, messages: &[NewMessage]) {
        black_box(done(self.0.enqueue(&self.1, messages)));
    }

    fn lease(&self, messages: usize) -> Vec<Receipt> {
        let deliveries = done(self.0.lease(&self.1, &LeaseOptions::new(messages)));
        black_box(deliveries)
            .into_iter()
            .map(|d| d.receipt)
            .collect()
    }

    fn ack(&self, receipts: &[Receipt]) {
        black_box(done(self.0.ack(&self.1, receipts)));
    }
}

struct Handle(Queue);

impl Subject for Handle {
    fn enqueue(&self, messages: &[NewMessage]) {
        match messages {
            [message] => drop(black_box(done(self.0.enqueue(message)))),
            _ => drop(black_box(done(self.0.enqueue_batch(messages)))),
        }
    }

    fn lease(&self, messages: usize) -> Vec<Receipt> {
        if messages == 1 {
            let delivery = black_box(done(self.0.lease()));
            return delivery.into_iter().map(|d| d.receipt).collect();
        }
        let deliveries = done(self.0.lease_batch(&LeaseOptions::new(messages)));
        black_box(deliveries)
            .into_iter()
            .map(|d| d.receipt)
            .collect()
    }

    fn ack(&self, receipts: &[Receipt]) {
        match receipts {
            [receipt] => drop(black_box(done(self.0.ack(receipt)))),
            _ => drop(black_box(done(self.0.ack_batch(receipts)))),
        }
    }
}

fn message() -> NewMessage {
    NewMessage::new(Bytes::copy_from_slice(&[7; 256]))
}

/// What `calls` calls of each kind take, on a queue that they find and leave empty.
#[allow(clippy::disallowed_methods)] // what is measured here is real time
fn timed(subject: &dyn Subject, calls: usize, size: usize) -> [Duration; 3] {
    let batch = |_| (0..size).map(|_| message()).collect();
    let batches: Vec<Vec<_>> = (0..calls).map(batch).collect();
    let start = Instant::now();
    batches.iter().for_each(|batch| subject.enqueue(batch));
    let enqueued = Instant::now();
    let leased: Vec<_> = (0..calls).map(|_| subject.lease(size)).collect();
    let all_leased = Instant::now();
    leased.iter().for_each(|receipts| subject.ack(receipts));
    [
        enqueued - start,
        all_leased - enqueued,
        all_leased.elapsed(),
    ]
}

fn each_call(group: &mut BenchmarkGroup<'_, WallTime>, subject: &dyn Subject, size: usize) {
    for (which, call) in ["enqueue", "lease", "ack"].into_iter().enumerate() {
        group.bench_function(call, |bencher| {
            bencher.iter_custom(|iterations| {
                let iterations = iterations as usize;
                let rounds = (0..iterations).step_by(CALLS);
                let round = |done| timed(subject, CALLS.min(iterations - done), size)[which];
                rounds.map(round).sum()
            });
        });
    }
    // One after another, the message and its payload made on the way.
    group.bench_function("all three", |bencher| {
        bencher.iter(|| {
            let batch: Vec<_> = (0..size).map(|_| message()).collect();
            subject.enqueue(&batch);
            subject.ack(&subject.lease(size));
        });
    });
}

fn calls(criterion: &mut Criterion) {
    let backend = MemoryBackend::new();
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q").expect("a name");
    let bare = Bare(backend, queue.name().clone());
    let handle = Handle(queue);
    let subjects: [(&str, &dyn Subject); 2] = [("backend", &bare), ("handle", &handle)];
    for (name, subject) in subjects {
        for size in [1, 100] {
            let mut group = criterion.benchmark_group(format!("{name}, batches of {size}"));
            group
                .throughput(Throughput::Elements(size as u64))
                .sample_size(20)
                .warm_up_time(Duration::from_millis(300))
                .measurement_time(Duration::from_secs(1));
            each_call(&mut group, subject, size);
        }
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
