//! Batches, by one process and by several.

use anyhow::Result;
use queue_api::Queue;

use super::{
    Location, Scale,
    backlog::{Backlog, lease_and_ack, message},
    baselines::Raw,
    consumers::Consumers,
    location::QUEUE,
    pgmq::Pgmq,
};
use crate::{
    report::{Report, Row, Target},
    window::{Window, work},
};

pub(super) const BATCH: usize = 500;

/// Batch size, the number of processes with a target, and the target beside one process.
const TARGETS: [(usize, usize, f64); 2] = [(500, 4, 1.2), (100, 16, 1.2)];

/// Beside pgmq as well if there is a URL of a PostgreSQL.
pub(super) async fn one_process(
    report: &mut Report,
    scale: &Scale,
    location: &Location,
    postgres: Option<&str>,
) -> Result<()> {
    let pgmq = match postgres {
        Some(url) => Some(Pgmq::new(url).await?),
        None => None,
    };
    let backlog = Backlog::new(&location.backend().await?, QUEUE, scale.backlog).await?;
    let raw = Raw::new(location, scale.backlog).await?;
    // No callers: the baseline.
    let measure = async |callers| match callers {
        0 => raw.drain(scale.counted).await,
        _ => {
            let context = (backlog.queue.clone(), BATCH);
            backlog
                .drain(scale.counted, callers, &context, lease_and_ack)
                .await
        }
    };
    let callers = [0, 1, 4];
    let mut figures = report.rounds(&callers, &measure).await?;
    let raw = figures.remove(0);
    let rows = [
        ("one caller", Target::AtLeast(3.0)),
        ("4 callers", Target::AtLeast(6.0)),
    ];
    for ((callers, target), figures) in rows.into_iter().zip(figures) {
        let name = format!("batches of {BATCH}, {callers}: lease + ack");
        report.rows.push(Row {
            figures,
            baseline: Some(("raw, one caller".to_owned(), raw.clone())),
            is_charted: true,
            ..Row::new(name, "messages/s", target)
        });
    }
    match pgmq {
        Some(pgmq) => pgmq.compare(report, scale, measure).await,
        None => Ok(()),
    }
}

pub(super) async fn enqueue(report: &mut Report, scale: &Scale, location: &Location) -> Result<()> {
    let queue = Backlog::new(&location.backend().await?, QUEUE, 1)
        .await?
        .queue;
    let raw = Raw::new(location, 0).await?;
    let window = || Window::after_warm_up(scale.counted);
    let baseline = async || Ok(work(window(), 1, &raw, Raw::enqueue).await?.rate);
    let measured = async || Ok(work(window(), 1, &queue, enqueue_batch).await?.rate);
    let name = format!("batches of {BATCH}, one caller: enqueue");
    let row = Row::new(name, "messages/s", Target::AtLeast(1.4));
    let name = "insert_many of a document each";
    report.compare(row, name, baseline, measured).await
}

async fn enqueue_batch(queue: Queue) -> Result<u64> {
    let batch: Vec<_> = (0..BATCH).map(|_| message()).collect();
    Ok(queue.enqueue_batch(&batch).await?.len() as u64)
}

/// Beside one process.
pub(super) async fn processes(
    report: &mut Report,
    scale: &Scale,
    location: &Location,
) -> Result<()> {
    let backlog = Backlog::new(&location.backend().await?, QUEUE, scale.backlog).await?;
    let mut consumers = Consumers::start(location).await?;
    for ((batch, with_target, least), counts) in TARGETS.into_iter().zip(scale.processes) {
        let measure = async |processes| consumers.drain(&backlog, scale, processes, batch).await;
        let mut figures = report.rounds(counts, measure).await?;
        let one = figures.remove(0);
        for (&processes, figures) in counts[1..].iter().zip(figures) {
            let name = format!("{processes} competing processes, batches of {batch}");
            let target = match processes == with_target {
                true => Target::AtLeast(least),
                false => Target::None,
            };
            report.rows.push(Row {
                figures,
                baseline: Some(("one process".to_owned(), one.clone())),
                ..Row::new(name, "messages/s", target)
            });
        }
    }
    Ok(())
}
