//! A worker with a live table of what it does, until Ctrl-C.
//!
//! ```text
//! cargo run --example worker                                    # in memory
//! cargo run --example worker -- --uri mongodb://… --database x   # on MongoDB or DocumentDB
//! cargo run --example worker -- --messages 500                  # and ends when all are done
//! ```
//!
//! A sender enqueues orders all the time; some of them fail at first, some never work, some do
//! not decode. Ctrl-C stops both, and gives the handlers five seconds to come to their end.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use clap::Parser;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use queue_api::{
    Clock, NewMessage, Queue, QueueBackend, TokioClock,
    consumer::{Context, Failure, Retry, RetryPolicy, Worker},
};
use queue_docdb::DocDbBackend;
use queue_memory::MemoryBackend;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Arguments {
    /// A MongoDB or DocumentDB; without it the queue is in memory.
    #[arg(long)]
    uri: Option<String>,
    /// The database there.
    #[arg(long, default_value = "queue_example")]
    database: String,
    /// How many messages are handled at a time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// How many messages are sent; without it, until Ctrl-C.
    #[arg(long)]
    messages: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Order {
    number: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_ctrl_c(stop.clone()));
    run(arguments, stop).await
}

async fn run(arguments: Arguments, stop: CancellationToken) -> anyhow::Result<()> {
    let counters = Counters::default();
    metrics::set_global_recorder(counters.clone())?;
    let backend: Arc<dyn QueueBackend> = match &arguments.uri {
        None => Arc::new(MemoryBackend::new()),
        Some(uri) => {
            let builder = DocDbBackend::builder(uri).database(&arguments.database);
            Arc::new(builder.connect().await?)
        }
    };
    let queue = Queue::new(backend, "orders")?;
    let sending = send(queue.clone(), arguments.messages, stop.clone());
    let showing = show(queue.clone(), counters, stop.clone());
    // Whichever ends, by an error or a panic too, ends the worker, or nobody would hear of it.
    let sending = tokio::spawn(ending(stop.clone(), sending));
    let showing = tokio::spawn(ending(stop.clone(), showing));

    let retry = RetryPolicy::custom(|_, _| Retry::After(Duration::from_millis(200)));
    let worker = Worker::new(queue, handle)
        .with_concurrency(arguments.concurrency)
        .with_retry_policy(retry)
        .with_time_limit(Duration::from_secs(10))
        .with_shutdown_deadline(Duration::from_secs(5));
    let report = worker.run(stop.cancelled_owned()).await?;

    sending.await??;
    showing.await??;
    println!("\n{report}");
    if let Some(messages) = arguments.messages {
        let settled = report.handled + report.dead_lettered;
        ensure!(settled >= messages, "{settled} of {messages} settled");
    }
    Ok(())
}

async fn handle(order: Order, context: Context) -> Result<(), Failure> {
    pause(Duration::from_millis(order.number % 40)).await;
    match order.number % 50 {
        7 => Err(Failure::give_up("an order that never works")),
        11 if context.attempt() == 1 => Err(Failure::retry("out of stock")),
        13 if context.attempt() == 1 => panic!("a bug that shows now and then"),
        _ => Ok(()),
    }
}

async fn send(queue: Queue, most: Option<u64>, stop: CancellationToken) -> anyhow::Result<()> {
    let orders = queue.typed();
    for number in 0..most.unwrap_or(u64::MAX) {
        if stop.is_cancelled() {
            return Ok(());
        }
        let message = match number % 100 {
            99 => NewMessage::new("not an order"),
            _ => orders.message(&Order { number })?,
        };
        queue.enqueue(&message).await?;
        pause(Duration::from_millis(2)).await;
    }
    // All are sent; what is left is to be handled.
    while !stop.is_cancelled() {
        let stats = queue.stats().await?;
        if stats.ready + stats.delayed + stats.leased == 0 {
            stop.cancel();
        }
        pause(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Prints a line a second. The depth is a gauge that `stats` sets; the rest are counters.
async fn show(queue: Queue, counters: Counters, stop: CancellationToken) -> anyhow::Result<()> {
    println!("ready delayed leased  dead | what was counted since the start");
    while !stop.is_cancelled() {
        let stats = queue.stats().await?;
        println!(
            "{:5} {:7} {:6} {:5} | {}",
            stats.ready,
            stats.delayed,
            stats.leased,
            stats.dead,
            counters.line()
        );
        tokio::select! {
            () = pause(Duration::from_secs(1)) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

/// Does the work, and stops everything when it has come to its end.
async fn ending<T>(stop: CancellationToken, work: impl Future<Output = T>) -> T {
    let _guard = stop.drop_guard();
    work.await
}

async fn stop_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        println!("\nstopping; once more kills");
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}

async fn pause(time: Duration) {
    let clock = TokioClock::new();
    clock.sleep_until(clock.now() + time).await;
}

/// The counters by name: a recorder as small as can be. A program would install one that exports.
#[derive(Clone, Default)]
struct Counters(Arc<Mutex<BTreeMap<String, Arc<Count>>>>);

#[derive(Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Counters {
    fn line(&self) -> String {
        let counters = self.0.lock().expect("nothing panics under it");
        let mut line = String::new();
        for (name, count) in &*counters {
            let name = name.trim_start_matches("queue_").trim_end_matches("_total");
            let name = name.trim_start_matches("messages_");
            let count = count.0.load(Ordering::Relaxed);
            write!(line, "{name} {count}  ").expect("text takes text");
        }
        line
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.0.lock().expect("nothing panics under it");
        let count = counters.entry(key.name().to_owned()).or_default();
        Counter::from_arc(count.clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_orders_are_settled() -> anyhow::Result<()> {
        let arguments = Arguments::parse_from(["worker", "--messages", "500"]);
        run(arguments, CancellationToken::new()).await
    }
}
