//! Many tasks that lease and ack a message at a time, beside what every MongoDB queue does.

use anyhow::ensure;
use queue_api::{LeaseOutcome, Queue};

use super::{Bench, Pair, Place, baselines::Naive, place::shared, stock::Stock};
use crate::{
    row::{Row, Unit},
    window::work,
};

/// How many tasks, and how many times the naive queue with as many.
const TASKS: [(usize, f64); 2] = [(32, 10.0), (256, 15.0)];

/// How many messages the naive queue holds; each round takes a few thousand.
const NAIVE_BACKLOG: u64 = 40_000;

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    let scale = bench.scale;
    bench.progress.step("storing messages");
    let mut stock = Stock::new(place, scale.backlog).await?;
    let shared = shared(&stock.backend)?;
    let naive = Naive::new(place, NAIVE_BACKLOG).await?;
    for (tasks, least) in TASKS {
        let mut pair = Pair::default();
        for round in 0..scale.rounds {
            bench
                .progress
                .round(round, scale.rounds, &format!("naive, {tasks} tasks"));
            let window = scale.pace.begin();
            let theirs = naive.clone();
            let done = work(window, tasks, move || {
                let naive = theirs.clone();
                async move { naive.lease_and_ack().await }
            });
            let done = done.await?;
            ensure!(
                done.total < NAIVE_BACKLOG / 10 * 9,
                "the naive queue ran dry"
            );
            pair.baseline.push(done.rate(window));
            naive.fill(done.total).await?;

            bench
                .progress
                .round(round, scale.rounds, &format!("{tasks} tasks"));
            let window = scale.pace.begin();
            let queue = shared.clone();
            let done = work(window, tasks, move || lease_and_ack_one(queue.clone())).await?;
            pair.measured.push(done.rate(window));
            stock.take(done.total).await?;
        }
        let name = format!("single calls, {tasks} tasks: lease + ack");
        let row = Row::new("single", name, Unit::MessagesPerSecond)
            .measured(pair.measured)
            .against(format!("naive, {tasks} tasks"), pair.baseline)
            .at_least(least);
        bench.findings.rows.push(row);
    }
    Ok(())
}

/// 1 if there was a message.
pub(super) async fn lease_and_ack_one(queue: Queue) -> anyhow::Result<u64> {
    let Some(delivery) = queue.lease().await? else {
        return Ok(0);
    };
    let outcome = queue.ack(&delivery.receipt).await?;
    ensure!(
        outcome == LeaseOutcome::Applied,
        "a lease of half a minute was lost"
    );
    Ok(1)
}
