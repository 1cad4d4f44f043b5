//! The latency of a lease while many messages are ready, or invisible.

use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::HumanCount;
use queue_api::{LeaseOptions, Queue};

use super::{
    Location, Scale,
    backlog::{Backlog, fill},
};
use crate::{
    report::{Report, Row, Target, quantile},
    window::nanos,
};

const BATCH: usize = 100;

/// Leases per round.
const LEASES: usize = 20;

/// How many messages are ready in the baseline, and behind invisible ones.
const FEW: u64 = 10_000;

/// In milliseconds.
const MOST_COUNTING: f64 = 300.0;

/// Longer than any run.
const INVISIBLE: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn measure(report: &mut Report, scale: &Scale, location: &Location) -> Result<()> {
    let backend = location.backend().await?;
    let few = Backlog::new(&backend, "few", FEW).await?;
    let mut ready = Backlog::new(&backend, "ready", FEW).await?;
    for &size in scale.backlogs {
        report.step(format!("storing {size} ready messages"));
        ready.grow(size).await?;
        let what = format!("{} ready", HumanCount(size));
        compare(report, &few, &ready, what).await?;
    }
    count(report, &ready, scale).await?;
    let invisible = Backlog::new(&backend, "invisible", FEW).await?;
    let mut stored = 0;
    for &size in scale.backlogs {
        report.step(format!("storing {size} invisible messages"));
        fill(&invisible.queue, size - stored, INVISIBLE).await?;
        stored = size;
        let [few_ready, many] = [FEW, size].map(HumanCount);
        let what = format!("{few_ready} ready behind {many} invisible");
        compare(report, &few, &invisible, what).await?;
    }
    Ok(())
}

/// The time in which the messages are counted. It grows with their number.
async fn count(report: &mut Report, backlog: &Backlog, scale: &Scale) -> Result<()> {
    let size = scale.backlogs.last().copied().unwrap_or_default();
    let measure = async || {
        let began = nanos();
        let stats = backlog.queue.stats().await?;
        let millis = (nanos() - began) as f64 / 1e6;
        ensure!(
            stats.ready == size,
            "{} of {size} messages counted",
            stats.ready
        );
        Ok(millis)
    };
    let name = format!("stats, {} ready", HumanCount(size));
    let row = Row::new(name, "ms", Target::AtMost(MOST_COUNTING));
    report.measure(row, measure).await
}

async fn compare(report: &mut Report, few: &Backlog, many: &Backlog, what: String) -> Result<()> {
    let row = Row::new(
        format!("lease of {BATCH}, {what}"),
        "ms",
        Target::AtMost(1.2),
    );
    let of_few = async || median_millis(few).await;
    let of_many = async || median_millis(many).await;
    let baseline = format!("{} ready", HumanCount(FEW));
    report.compare(row, &baseline, of_few, of_many).await
}

async fn median_millis(backlog: &Backlog) -> Result<f64> {
    let mut millis = Vec::new();
    for _ in 0..LEASES {
        millis.push(lease_millis(&backlog.queue).await?);
    }
    backlog.refill((LEASES * BATCH) as u64).await?;
    Ok(quantile(&millis, 0.5))
}

/// The time of a lease, without that of the ack after it.
async fn lease_millis(queue: &Queue) -> Result<f64> {
    let began = nanos();
    let deliveries = queue.lease_batch(&LeaseOptions::new(BATCH)).await?;
    let millis = (nanos() - began) as f64 / 1e6;
    ensure!(
        deliveries.len() == BATCH,
        "{} of {BATCH} leased",
        deliveries.len()
    );
    let receipts: Vec<_> = deliveries.into_iter().map(|it| it.receipt).collect();
    queue.ack_batch(&receipts).await?;
    Ok(millis)
}
