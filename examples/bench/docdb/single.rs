//! Many tasks with a message at a time: by hand, and by a worker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use queue_api::{
    LeaseOutcome, Queue,
    consumer::{Context, Worker},
};
use tokio::sync::oneshot;

use super::{
    Location, Scale,
    backlog::{Backlog, message},
    baselines::Naive,
    location::QUEUE,
};
use crate::{
    report::{Report, Row, Target},
    window::{WARM_UP, Window, nanos, pause, seconds_since, work},
};

/// Tasks, and the targets for lease + ack and for enqueue.
const TARGETS: [(usize, f64, f64); 2] = [(32, 12.0, 6.0), (256, 25.0, 20.0)];

/// Enough for a round; the naive queue is as fast with more.
const NAIVE_BACKLOG: u64 = 40_000;

const WORKER_CONCURRENCY: usize = 64;

/// In milliseconds.
const LONGEST_HANDLER: u64 = 20;

pub(super) async fn lease_and_ack(
    report: &mut Report,
    scale: &Scale,
    location: &Location,
) -> Result<()> {
    let backend = location.backend().await?;
    let backlog = Backlog::new(&backend, QUEUE, scale.backlog).await?;
    let naive = Naive::new(location, NAIVE_BACKLOG).await?;
    for (tasks, least, _) in TARGETS {
        let baseline = async || naive.drain(scale.counted, tasks).await;
        let measured = async || {
            backlog
                .drain(scale.counted, tasks, &backlog.queue, lease_and_ack_one)
                .await
        };
        let row = row("lease + ack", tasks, least);
        let name = format!("naive, {tasks} tasks");
        report.compare(row, &name, baseline, measured).await?;
    }
    Ok(())
}

pub(super) async fn enqueue(report: &mut Report, scale: &Scale, location: &Location) -> Result<()> {
    // The first enqueue creates the indexes.
    let backlog = Backlog::new(&location.backend().await?, QUEUE, 1).await?;
    let queue = backlog.queue;
    let naive = Naive::new(location, 0).await?;
    for (tasks, _, least) in TARGETS {
        let window = || Window::after_warm_up(scale.counted);
        let baseline = async || Ok(work(window(), tasks, &naive, Naive::enqueue).await?.rate);
        let measured = async || Ok(work(window(), tasks, &queue, enqueue_one).await?.rate);
        let row = row("enqueue", tasks, least);
        let name = format!("insert_one, {tasks} tasks");
        report.compare(row, &name, baseline, measured).await?;
    }
    Ok(())
}

pub(super) async fn worker(report: &mut Report, scale: &Scale, location: &Location) -> Result<()> {
    const TASKS: usize = WORKER_CONCURRENCY;
    let backend = location.backend().await?;
    let backlog = Backlog::new(&backend, QUEUE, scale.backlog).await?;
    for (longest, handlers) in [
        (0, "empty handlers"),
        (LONGEST_HANDLER, "handlers of 0 to 20 ms"),
    ] {
        let baseline = async || {
            let context = (backlog.queue.clone(), longest);
            let drained = backlog.drain(scale.counted, TASKS, &context, handle_one);
            drained.await
        };
        let measured = async || {
            let (rate, handled) = run_worker(backlog.queue.clone(), scale.counted, longest).await?;
            backlog.refill(handled).await?;
            Ok(rate)
        };
        let name = format!("worker, concurrency {TASKS}, {handlers}");
        let row = Row::new(name, "messages/s", Target::AtLeast(0.8));
        let name = format!("single calls, {TASKS} tasks");
        report.compare(row, &name, baseline, measured).await?;
    }
    Ok(())
}

fn row(calls: &str, tasks: usize, least: f64) -> Row {
    let name = format!("single calls, {tasks} tasks: {calls}");
    Row {
        is_charted: true,
        ..Row::new(name, "messages/s", Target::AtLeast(least))
    }
}

async fn lease_and_ack_one(queue: Queue) -> Result<u64> {
    handle_one((queue, 0)).await
}

/// Leases a message, takes up to `longest` milliseconds for it, and acks it.
async fn handle_one((queue, longest): (Queue, u64)) -> Result<u64> {
    let Some(delivery) = queue.lease().await? else {
        return Ok(0);
    };
    take_up_to(longest).await;
    let outcome = queue.ack(&delivery.receipt).await?;
    ensure!(outcome == LeaseOutcome::Applied, "the ack was {outcome:?}");
    Ok(1)
}

async fn take_up_to(longest: u64) {
    if longest > 0 {
        pause(Duration::from_millis(fastrand::u64(0..=longest))).await;
    }
}

async fn enqueue_one(queue: Queue) -> Result<u64> {
    queue.enqueue(&message()).await?;
    Ok(1)
}

/// Returns messages per second, and how many messages were handled in all.
async fn run_worker(queue: Queue, counted: Duration, longest: u64) -> Result<(f64, u64)> {
    let handled = Arc::new(AtomicU64::new(0));
    let count = handled.clone();
    let handler = move |_: String, _: Context| {
        let count = count.clone();
        async move {
            take_up_to(longest).await;
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, String>(())
        }
    };
    let worker = Worker::new(queue, handler).with_concurrency(WORKER_CONCURRENCY);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move { worker.run(stopped).await });
    pause(WARM_UP).await;
    let (began, before) = (nanos(), handled.load(Ordering::Relaxed));
    pause(counted).await;
    let messages = handled.load(Ordering::Relaxed) - before;
    let rate = messages as f64 / seconds_since(began);
    drop(stop);
    Ok((rate, running.await??.handled))
}
