//! Batches by one process, beside the least that they can cost.

use anyhow::ensure;
use queue_api::{LeaseOptions, LeaseOutcome, Queue};

use super::{Bench, Pair, Place, baselines::Raw, stock::Stock};
use crate::{
    row::{Row, Unit},
    table::grouped,
    window::work,
};

const BATCH: usize = 500;

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    let scale = bench.scale;
    bench.progress.step("storing messages");
    let mut stock = Stock::new(place, scale.backlog).await?;
    let raw = Raw::new(place).await?;
    let mut pair = Pair::default();
    for round in 0..scale.rounds {
        bench.progress.round(round, scale.rounds, "raw");
        raw.look(scale.backlog / 10 * 9).await?;
        let window = scale.pace.begin();
        let raw = raw.clone();
        let done = work(window, 1, move || {
            let raw = raw.clone();
            async move { raw.pass().await }
        });
        let done = done.await?;
        pair.baseline.push(done.rate(window));
        stock.take(done.total).await?;

        bench.progress.round(round, scale.rounds, "batches");
        let window = scale.pace.begin();
        let queue = stock.queue.clone();
        let done = work(window, 1, move || lease_and_ack(queue.clone(), BATCH)).await?;
        pair.measured.push(done.rate(window));
        stock.take(done.total).await?;
    }
    let backlog = grouped(i64::try_from(scale.backlog)?);
    let name = format!("batches of {BATCH}, one process, backlog {backlog}: lease + ack");
    let row = Row::new("batches", name, Unit::MessagesPerSecond)
        .measured(pair.measured)
        .against("raw", pair.baseline)
        .at_least(1.0);
    bench.findings.rows.push(row);
    Ok(())
}

/// How many messages a lease and an ack dealt with.
pub(super) async fn lease_and_ack(queue: Queue, batch: usize) -> anyhow::Result<u64> {
    let deliveries = queue.lease_batch(&LeaseOptions::new(batch)).await?;
    if deliveries.is_empty() {
        return Ok(0);
    }
    let receipts: Vec<_> = deliveries.into_iter().map(|it| it.receipt).collect();
    let outcomes = queue.ack_batch(&receipts).await?;
    let all_applied = outcomes.iter().all(|it| *it == LeaseOutcome::Applied);
    ensure!(all_applied, "a lease of half a minute was lost");
    Ok(outcomes.len() as u64)
}
