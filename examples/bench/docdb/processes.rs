//! Processes that compete for one queue.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Bench, Place, batches::lease_and_ack, stock::Stock};
use crate::{
    chart::Chart,
    child::{self, Child, Role},
    row::{Row, Unit},
    samples::Samples,
    window::{Window, Work, work},
};

/// Batch size, processes, and how many times one process with that batch size.
const TARGETS: [(usize, usize, f64); 2] = [(500, 4, 1.2), (100, 16, 0.9)];

/// What a competitor is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    batch: usize,
    window: Window,
}

pub(super) async fn measure(bench: &mut Bench<'_>, place: &Place) -> anyhow::Result<()> {
    let scale = bench.scale;
    bench.progress.step("storing messages");
    let mut stock = Stock::new(place, scale.backlog).await?;
    let most = scale
        .processes
        .iter()
        .flatten()
        .max()
        .context("processes")?;
    let mut children = Vec::new();
    for _ in 0..*most {
        children.push(Child::start(&Role::Competitor(place.clone()))?);
    }
    for child in &mut children {
        // When it is connected; else the first round would measure that.
        child.hear::<Work>()?;
    }
    for ((batch, competitors, least), counts) in TARGETS.into_iter().zip(&scale.processes) {
        let mut rates = vec![Samples::default(); counts.len()];
        for round in 0..scale.rounds {
            for (&processes, samples) in counts.iter().zip(&mut rates) {
                let what = format!("{processes} with batches of {batch}");
                bench.progress.round(round, scale.rounds, &what);
                let window = scale.pace.begin();
                let done = compete_for(&mut children[..processes], batch, window)?;
                samples.push(done.rate(window));
                stock.take(done.total).await?;
            }
        }
        report(bench, batch, (competitors, least), (counts, &rates))?;
    }
    Ok(())
}

fn compete_for(children: &mut [Child], batch: usize, window: Window) -> anyhow::Result<Work> {
    for child in children.iter_mut() {
        child.order(&Order { batch, window })?;
    }
    children.iter_mut().map(Child::hear::<Work>).sum()
}

fn report(
    bench: &mut Bench<'_>,
    batch: usize,
    (competitors, least): (usize, f64),
    (counts, rates): (&[usize], &[Samples]),
) -> anyhow::Result<()> {
    let chart = Chart {
        title: "Throughput against processes".to_owned(),
        x_label: "processes that compete for one queue",
        y_label: "messages/s, leased and acked",
        series: Vec::new(),
    };
    let series = format!("batches of {batch}");
    let one = rates.first().context("processes")?;
    for (&processes, samples) in counts.iter().zip(rates) {
        let findings = &mut bench.findings;
        findings.plot(&chart, &series, processes as f64, samples);
        if processes == 1 {
            continue;
        }
        let name = format!("{processes} competing processes, batches of {batch}");
        let row = Row::new("processes", name, Unit::MessagesPerSecond)
            .measured(samples.clone())
            .against("one process", one.clone());
        let is_target = processes == competitors;
        findings
            .rows
            .push(if is_target { row.at_least(least) } else { row });
    }
    Ok(())
}

/// What a child does: it works through each window that the parent names, until the parent goes.
pub(crate) async fn compete(place: &Place) -> anyhow::Result<()> {
    // First of all, as it ends this process with its parent.
    let orders = child::orders::<Order>();
    let stock = Stock::new(place, 0).await?;
    // The queue's version is looked at by the first call, which is not to be measured.
    stock.queue.stats().await?;
    child::tell(&Work::default())?;
    // Blocks the thread of `main`, on which no other task runs.
    while let Ok(Order { batch, window }) = orders.recv() {
        let queue = stock.queue.clone();
        let done = work(window, 1, move || lease_and_ack(queue.clone(), batch)).await?;
        child::tell(&done)?;
    }
    Ok(())
}
