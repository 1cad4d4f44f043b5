//! Batches by one process, beside the least that a caller's can cost.

use anyhow::ensure;
use queue_api::{LeaseOptions, LeaseOutcome, Queue};

use super::{Bench, Place, baselines::Raw, stock::Stock};
use crate::{
    row::{Row, Unit},
    samples::Samples,
    table::grouped,
    window::work,
};

const BATCH: usize = 500;

/// How many lease and ack at the same time. One waits for each command, so most of the server has
/// nothing to do; raw waits in the same way.
const CALLERS: [usize; 2] = [1, 4];

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    let scale = bench.scale;
    bench.progress.step("storing messages");
    let mut stock = Stock::new(place, scale.backlog).await?;
    let raw = Raw::new(place).await?;
    let mut baseline = Samples::default();
    let mut measured = CALLERS.map(|_| Samples::default());
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
        baseline.push(done.rate(window));
        stock.take(done.total).await?;

        for (callers, measured) in CALLERS.into_iter().zip(&mut measured) {
            let step = format!("callers: {callers}");
            bench.progress.round(round, scale.rounds, &step);
            let window = scale.pace.begin();
            let queue = stock.queue.clone();
            let done = work(window, callers, move || lease_and_ack(queue.clone(), BATCH)).await?;
            measured.push(done.rate(window));
            stock.take(done.total).await?;
        }
    }
    let backlog = grouped(i64::try_from(scale.backlog)?);
    for (callers, measured) in CALLERS.into_iter().zip(measured) {
        let who = match callers {
            1 => "one process".to_owned(),
            _ => format!("{callers} callers in one process"),
        };
        let name = format!("batches of {BATCH}, {who}, backlog {backlog}: lease + ack");
        let row = Row::new("batches", name, Unit::MessagesPerSecond)
            .measured(measured)
            .against("raw, one caller", baseline.clone());
        bench.findings.rows.push(match callers {
            1 => row.at_least(1.0),
            _ => row,
        });
    }
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
