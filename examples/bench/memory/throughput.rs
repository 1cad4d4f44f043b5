//! Messages that go through an all but empty queue, one after another and in batches.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use queue_api::{LeaseOptions, LeaseOutcome, Queue, QueueBackend, QueueName, Receipt};
use queue_memory::MemoryBackend;

use super::{PAYLOAD, Scale, message, peer::Peer};
use crate::{
    chart::Chart,
    clock::{nanos, seconds_since},
    findings::Findings,
    progress::Progress,
    row::{Row, Unit},
    samples::Samples,
};

/// How many messages are enqueued, leased and acked by a call; 1 is a call for each message.
const BATCHES: [usize; 4] = [1, 10, 100, 1000];

pub(super) async fn measure(
    scale: &Scale,
    progress: &Progress,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let backend: Arc<dyn QueueBackend> = Arc::new(MemoryBackend::new());
    let queue = Queue::new(backend.clone(), "throughput")?;
    let mut peer = Peer::new().await?;
    for batch in BATCHES {
        let [mut handle, mut bare, mut theirs] = [(); 3].map(|()| Samples::default());
        // The first round fills caches and the allocator, and does not count.
        for round in 0..=scale.rounds {
            progress.round(round, scale.rounds + 1, &format!("batches of {batch}"));
            let messages = scale.messages;
            let rates = [
                through_the_handle(&queue, batch, messages).await?,
                through_the_backend(&*backend, queue.name(), batch, messages).await?,
                rate(messages, peer.pass(&PAYLOAD, batch, messages)).await?,
            ];
            if round > 0 {
                handle.push(rates[0]);
                bare.push(rates[1]);
                theirs.push(rates[2]);
            }
        }
        report(findings, batch, [handle, bare, theirs]);
    }
    Ok(())
}

fn report(findings: &mut Findings, batch: usize, samples: [Samples; 3]) {
    let [handle, bare, theirs] = samples;
    let name = match batch {
        1 => "single calls".to_owned(),
        _ => format!("batches of {batch}"),
    };
    let chart = Chart {
        title: "Throughput of one thread against batch size".to_owned(),
        x_label: "messages in a call",
        y_label: "messages/s",
        series: Vec::new(),
    };
    findings.plot(&chart, "memory", batch as f64, &handle);
    findings.plot(&chart, "omniqueue", batch as f64, &theirs);
    let row = |name: String| Row::new("throughput", name, Unit::MessagesPerSecond);
    let least = match batch {
        1 => Some(500_000.0),
        100 => Some(1_000_000.0),
        _ => None,
    };
    let beside = row(format!("{name}, beside omniqueue"))
        .measured(handle.clone())
        .against("omniqueue", theirs);
    let alone = row(format!("{name}: enqueue + lease + ack")).measured(handle);
    match least {
        Some(least) => findings
            .rows
            .extend([alone.at_least(least), beside.at_least(1.0)]),
        None => findings.rows.push(beside),
    }
    findings
        .rows
        .push(row(format!("{name}, without the handle")).measured(bare));
}

/// Messages a second that `pass` gets through.
async fn rate(
    messages: usize,
    pass: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<f64> {
    let began = nanos();
    pass.await?;
    Ok(messages as f64 / seconds_since(began))
}

async fn through_the_handle(queue: &Queue, batch: usize, messages: usize) -> anyhow::Result<f64> {
    match batch {
        1 => rate(messages, one_by_one(queue, messages)).await,
        _ => rate(messages, in_batches(queue, &PAYLOAD, batch, messages)).await,
    }
}

async fn one_by_one(queue: &Queue, messages: usize) -> anyhow::Result<()> {
    for _ in 0..messages {
        queue.enqueue(&message(&PAYLOAD)).await?;
        let delivery = queue.lease().await?.context("it was just stored")?;
        let outcome = queue.ack(&delivery.receipt).await?;
        ensure!(outcome == LeaseOutcome::Applied, "its lease was lost");
    }
    Ok(())
}

pub(super) async fn in_batches(
    queue: &Queue,
    payload: &[u8],
    batch: usize,
    messages: usize,
) -> anyhow::Result<()> {
    let options = LeaseOptions::new(batch);
    for _ in 0..messages / batch {
        let new: Vec<_> = (0..batch).map(|_| message(payload)).collect();
        queue.enqueue_batch(&new).await?;
        let deliveries = queue.lease_batch(&options).await?;
        ensure!(deliveries.len() == batch, "so many are ready");
        let receipts: Vec<Receipt> = deliveries.into_iter().map(|it| it.receipt).collect();
        let outcomes = queue.ack_batch(&receipts).await?;
        let all_applied = outcomes.iter().all(|it| *it == LeaseOutcome::Applied);
        ensure!(all_applied, "a lease was lost");
    }
    Ok(())
}

async fn through_the_backend(
    backend: &dyn QueueBackend,
    queue: &QueueName,
    batch: usize,
    messages: usize,
) -> anyhow::Result<f64> {
    let options = LeaseOptions::new(batch);
    let pass = async {
        for _ in 0..messages / batch {
            let new: Vec<_> = (0..batch).map(|_| message(&PAYLOAD)).collect();
            backend.enqueue(queue, &new).await?;
            let deliveries = backend.lease(queue, &options).await?;
            ensure!(deliveries.len() == batch, "so many are ready");
            let receipts: Vec<Receipt> = deliveries.into_iter().map(|it| it.receipt).collect();
            backend.ack(queue, &receipts).await?;
        }
        Ok(())
    };
    rate(messages, pass).await
}
