//! A worker, beside tasks that lease and ack by hand.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use queue_api::{
    Bytes, Codec, CodecError, Queue,
    consumer::{Context, Worker},
};
use tokio::sync::oneshot;

use super::{Bench, Pair, Place, place::shared, single::lease_and_ack_one, stock::Stock};
use crate::{
    clock::{nanos, pause, seconds_since},
    row::{Row, Unit},
    window::{Window, work},
};

/// Concurrency of the worker, and how many tasks there are beside it.
const TASKS: usize = 64;

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    let scale = bench.scale;
    bench.progress.step("storing messages");
    let mut stock = Stock::new(place, scale.backlog).await?;
    let shared = shared(&stock.backend)?;
    let mut pair = Pair::default();
    for round in 0..scale.rounds {
        bench.progress.round(round, scale.rounds, "single calls");
        let window = scale.pace.begin();
        let queue = shared.clone();
        let done = work(window, TASKS, move || lease_and_ack_one(queue.clone())).await?;
        pair.baseline.push(done.rate(window));
        stock.take(done.total).await?;

        bench.progress.round(round, scale.rounds, "worker");
        let (rate, handled) = run(shared.clone(), scale.pace.begin()).await?;
        pair.measured.push(rate);
        stock.take(handled).await?;
    }
    let name = format!("worker, concurrency {TASKS}, empty handler");
    let row = Row::new("worker", name, Unit::MessagesPerSecond)
        .measured(pair.measured)
        .against(format!("single calls, {TASKS} tasks"), pair.baseline)
        .at_least(0.8);
    bench.findings.rows.push(row);
    Ok(())
}

/// Messages a second that a worker handles, and how many it has handled in all.
async fn run(queue: Queue, window: Window) -> anyhow::Result<(f64, u64)> {
    let handled = Arc::new(AtomicU64::new(0));
    let count = handled.clone();
    let handler = move |(), _: Context| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, String>(()) }
    };
    let worker = Worker::new(queue, handler).with_codec(Ignored);
    let worker = worker.with_concurrency(TASKS);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move { worker.run(stopped).await });
    pause(window.until_begin()).await;
    let (began, before) = (nanos(), handled.load(Ordering::Relaxed));
    pause(window.until_end()).await;
    let within = handled.load(Ordering::Relaxed) - before;
    let rate = within as f64 / seconds_since(began);
    // Fails if the worker has ended by itself, and then what it says is an error.
    let _ = stop.send(());
    let report = running.await??;
    Ok((rate, report.handled))
}

/// Payloads that nobody looks at.
#[derive(Debug)]
struct Ignored;

impl Codec<()> for Ignored {
    fn encode(&self, (): &()) -> Result<Bytes, CodecError> {
        Ok(Bytes::new())
    }

    fn decode(&self, _: &Bytes) -> Result<(), CodecError> {
        Ok(())
    }
}
