//! What a message costs while many others are stored.

use std::sync::Arc;

use anyhow::Context as _;
use queue_api::Queue;
use queue_memory::MemoryBackend;

use super::{Scale, message, throughput::in_batches};
use crate::{
    chart::Chart,
    clock::nanos,
    findings::Findings,
    progress::Progress,
    row::{Row, Unit},
    samples::Samples,
    table::grouped,
};

const BATCH: usize = 100;

/// Small, so that what is measured is the queue and not the allocator.
const PAYLOAD: [u8; 16] = [7; 16];

pub(super) async fn measure(
    scale: &Scale,
    progress: &Progress,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let mut queues = Vec::new();
    for &stored in &scale.stored {
        progress.step(&format!("storing {}", grouped(stored as i64)));
        queues.push(filled(stored).await?);
    }
    let mut nanoseconds = vec![Samples::default(); queues.len()];
    for round in 0..=scale.rounds {
        progress.round(round, scale.rounds + 1, "passing messages");
        for (queue, samples) in queues.iter().zip(&mut nanoseconds) {
            let began = nanos();
            in_batches(queue, &PAYLOAD, BATCH, scale.messages).await?;
            // The first round fills caches, and does not count.
            if round > 0 {
                samples.push((nanos() - began) as f64 / scale.messages as f64);
            }
        }
    }
    let chart = Chart {
        title: "Time for a message against backlog, batches of 100".to_owned(),
        x_label: "stored messages",
        y_label: "ns for enqueue + lease + ack",
        series: Vec::new(),
    };
    let (small, least) = nanoseconds
        .first()
        .zip(scale.stored.first())
        .context("sizes")?;
    let last = scale.stored.len() - 1;
    for (index, (samples, &stored)) in nanoseconds.iter().zip(&scale.stored).enumerate() {
        findings.plot(&chart, "memory", stored as f64, samples);
        if index == 0 {
            continue;
        }
        let name = format!("a message with {} stored", grouped(stored as i64));
        let row = Row::new("backlog", name, Unit::Nanoseconds)
            .measured(samples.clone())
            .against(format!("{} stored", grouped(*least as i64)), small.clone());
        findings
            .rows
            .push(if index == last { row.at_most(3.0) } else { row });
    }
    Ok(())
}

async fn filled(stored: usize) -> anyhow::Result<Queue> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "backlog")?;
    for _ in 0..stored / 1000 {
        let batch: Vec<_> = (0..1000).map(|_| message(&PAYLOAD)).collect();
        queue.enqueue_batch(&batch).await?;
    }
    Ok(queue)
}
