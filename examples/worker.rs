//! A worker that handles orders until you stop it, with a line of statistics each second.
//!
//! ```text
//! cargo run --example worker                     # until Ctrl-C or SIGTERM
//! cargo run --example worker -- --messages 500   # until 500 orders are handled
//! ```
//!
//! `worker_docdb` in `docdb/` is the same on MongoDB.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use clap::Parser;
use queue_api::{
    Clock, NewMessage, Queue, QueueBackend, TokioClock,
    consumer::{Context, Failure, FailureKind, Retry, RetryPolicy, Worker, shutdown_signal},
};
use queue_memory::MemoryBackend;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
pub(crate) struct Arguments {
    /// How many orders are handled at the same time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// How many orders are enqueued. Without it, the program runs until you stop it.
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
    run(Arc::new(MemoryBackend::new()), arguments, stop_on_signal()).await
}

pub(crate) async fn run(
    backend: Arc<dyn QueueBackend>,
    arguments: Arguments,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let queue = Queue::new(backend, "orders")?;
    let retry = RetryPolicy::custom(|failed| match failed.failure.kind() {
        FailureKind::Undecodable => Retry::GiveUp, // no newer version could decode it
        _ => Retry::After(Duration::from_millis(200)),
    });
    let worker = Worker::new(queue.clone(), handle)
        .with_concurrency(arguments.concurrency)
        .with_retry_policy(retry)
        .with_time_limit(Duration::from_secs(10))
        .with_shutdown_deadline(Duration::from_secs(5));

    let working = async { Ok(worker.run(stop.cancelled()).await?) };
    let sending = send(&queue, arguments.messages, &stop);
    let (report, (), ()) = tokio::try_join!(working, sending, show(&queue, &stop))?;

    println!("\n{report}");
    if let Some(messages) = arguments.messages {
        let settled = report.handled + report.dead_lettered;
        ensure!(settled >= messages, "{settled} of {messages} are settled");
    }
    Ok(())
}

/// Handles one order. Some orders fail once, some always.
async fn handle(order: Order, context: Context) -> Result<(), Failure> {
    pause(Duration::from_millis(order.number % 40)).await;
    match order.number % 50 {
        7 => Err(Failure::give_up("unknown article")), // a dead letter at once
        11 if context.attempt() == 1 => Err(Failure::retry("the shop is closed")),
        13 if context.attempt() == 1 => panic!("a bug"), // is retried, too
        _ => Ok(()),
    }
}

/// Enqueues orders. If their number is limited, stops the program when all are settled.
async fn send(
    queue: &Queue,
    messages: Option<u64>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let orders = queue.typed();
    for number in 0..messages.unwrap_or(u64::MAX) {
        if stop.is_cancelled() {
            return Ok(());
        }
        let message = match number % 100 {
            99 => NewMessage::new("not an order"), // does not decode
            _ => orders.message(&Order { number })?,
        };
        queue.enqueue(&message).await?;
        pause(Duration::from_millis(2)).await;
    }
    while !stop.is_cancelled() {
        let stats = queue.stats().await?;
        if stats.ready + stats.delayed + stats.leased == 0 {
            stop.cancel();
        }
        pause(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Prints the statistics of the queue each second.
async fn show(queue: &Queue, stop: &CancellationToken) -> anyhow::Result<()> {
    println!("ready delayed leased  dead");
    while !stop.is_cancelled() {
        let stats = queue.stats().await?;
        println!(
            "{:5} {:7} {:6} {:5}",
            stats.ready, stats.delayed, stats.leased, stats.dead
        );
        tokio::select! {
            () = pause(Duration::from_secs(1)) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

/// A token that Ctrl-C or SIGTERM cancels. The second signal ends the process at once.
pub(crate) fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let signal = shutdown_signal();
    tokio::spawn(async move {
        signal.await?;
        println!("\nstopping; a second signal ends the program at once");
        stopping.cancel();
        shutdown_signal().await?;
        std::process::exit(1);
        #[allow(unreachable_code)]
        std::io::Result::Ok(())
    });
    stop
}

async fn pause(time: Duration) {
    let clock = TokioClock::new();
    clock.sleep_until(clock.now() + time).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_orders_are_settled() -> anyhow::Result<()> {
        let arguments = Arguments::parse_from(["worker", "--messages", "500"]);
        let backend = Arc::new(MemoryBackend::new());
        run(backend, arguments, CancellationToken::new()).await
    }
}
