//! What a lease takes while many messages are ready, or invisible.

use std::time::Duration;

use anyhow::ensure;
use queue_api::{LeaseOptions, Queue};

use super::{
    Bench, Place,
    stock::{Stock, fill},
};
use crate::{
    chart::Chart,
    clock::nanos,
    row::{Row, Unit},
    samples::Samples,
    table::grouped,
};

const BATCH: usize = 100;

/// Longer than any run.
const INVISIBLE: Duration = Duration::from_secs(24 * 3600);

/// What there is more of than in the small queue.
#[derive(Clone, Copy)]
enum Crowd {
    Ready,
    Invisible,
}

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    let scale = bench.scale;
    let backend = place.backend().await?;
    let mut small = Stock::named(backend.clone(), "small", scale.small).await?;
    for crowd in [Crowd::Ready, Crowd::Invisible] {
        let name = match crowd {
            Crowd::Ready => "ready",
            Crowd::Invisible => "invisible",
        };
        let mut large = Stock::named(backend.clone(), name, scale.small).await?;
        let mut invisible = 0;
        for &size in &scale.larger {
            let what = format!("storing {} {name}", grouped(i64::try_from(size)?));
            bench.progress.step(&what);
            match crowd {
                Crowd::Ready => large.grow(size).await?,
                Crowd::Invisible => {
                    fill(&large.queue, size - invisible, INVISIBLE).await?;
                    invisible = size;
                }
            }
            compare(bench, &mut small, &mut large, crowd, size).await?;
        }
    }
    Ok(())
}

async fn compare(
    bench: &mut Bench<'_>,
    small: &mut Stock,
    large: &mut Stock,
    crowd: Crowd,
    size: u64,
) -> anyhow::Result<()> {
    let scale = bench.scale;
    let [mut of_small, mut of_large] = [(); 2].map(|()| Samples::default());
    for round in 0..scale.rounds {
        bench.progress.round(round, scale.rounds, "leasing");
        let [mut in_small, mut in_large] = [(); 2].map(|()| Samples::default());
        for _ in 0..scale.leases_a_round {
            in_small.push(lease_millis(&small.queue).await?);
            in_large.push(lease_millis(&large.queue).await?);
        }
        of_small.push(in_small.median());
        of_large.push(in_large.median());
        let taken = (scale.leases_a_round * BATCH) as u64;
        small.take(taken).await?;
        large.take(taken).await?;
    }
    report(bench, crowd, size, (of_small, of_large));
    Ok(())
}

fn report(bench: &mut Bench<'_>, crowd: Crowd, size: u64, (small, large): (Samples, Samples)) {
    let scale = bench.scale;
    let shown = |number: u64| grouped(number.cast_signed());
    let few = shown(scale.small);
    let (name, series) = match crowd {
        Crowd::Ready => (
            format!("lease of {BATCH}, {} ready", shown(size)),
            "ready".to_owned(),
        ),
        Crowd::Invisible => (
            format!(
                "lease of {BATCH}, {few} ready behind {} invisible",
                shown(size)
            ),
            format!("invisible, and {few} ready"),
        ),
    };
    let chart = Chart {
        title: format!("Latency of a lease of {BATCH} against backlog"),
        x_label: "messages",
        y_label: "ms, median",
        series: Vec::new(),
    };
    let findings = &mut bench.findings;
    if scale.larger.first() == Some(&size) {
        findings.plot(&chart, &series, scale.small as f64, &small);
    }
    findings.plot(&chart, &series, size as f64, &large);
    let row = Row::new("latency", name, Unit::Milliseconds)
        .measured(large)
        .against(format!("{few} ready"), small);
    let is_largest = scale.larger.last() == Some(&size);
    findings
        .rows
        .push(if is_largest { row.at_most(1.3) } else { row });
}

/// How long it takes to lease a batch, which is acked afterwards.
async fn lease_millis(queue: &Queue) -> anyhow::Result<f64> {
    let began = nanos();
    let deliveries = queue.lease_batch(&LeaseOptions::new(BATCH)).await?;
    let took = (nanos() - began) as f64 / 1e6;
    ensure!(deliveries.len() == BATCH, "so many are ready");
    let receipts: Vec<_> = deliveries.into_iter().map(|it| it.receipt).collect();
    queue.ack_batch(&receipts).await?;
    Ok(took)
}
