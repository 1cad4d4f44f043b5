//! Many messages a document, beside one message a document.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use mongodb::{
    Database,
    bson::{Bson, Document, doc},
};
use queue_api::Queue;
use queue_docdb::DocDbBackend;

use super::{
    Location, Scale,
    backlog::{Backlog, fill, lease_and_ack, message},
    batches::BATCH,
    consumers::{Consumers, MOST},
};
use crate::{
    report::{Report, Row, Target, quantile},
    window::{nanos, pause},
};

/// Lease sizes of competing processes, with the targets.
const LEASES: [(usize, f64); 2] = [(10, 1.2), (1, 0.9)];

/// Messages whose writes and bytes are counted.
const COUNTED: u64 = 20_000;

/// Calls of a lone message in a round.
const LONE_CALLS: usize = 100;

pub(super) async fn measure(report: &mut Report, scale: &Scale, location: &Location) -> Result<()> {
    let many = location.backend().await?;
    let one = location.backend_with_entries_of(1).await?;
    let entries = Backlog::new(&many, "entries", scale.backlog).await?;
    let documents = Backlog::new(&one, "documents", scale.backlog).await?;
    // The first enqueue decides that the queue has an index on ids.
    fill(&Queue::new(many.clone(), "alone")?, 1, Duration::ZERO).await?;
    let alone = Backlog::new(&one, "alone", scale.backlog).await?;
    for (backlog, what, target) in [
        (&entries, "in batches", Target::None),
        (&alone, "one by one", Target::AtLeast(0.9)),
    ] {
        let drain = async |backlog: &Backlog| {
            let context = (backlog.queue.clone(), BATCH);
            backlog
                .drain(scale.counted, 1, &context, lease_and_ack)
                .await
        };
        let name = format!("enqueued {what}, batches of {BATCH}: lease + ack");
        let row = Row::new(name, "messages/s", target);
        let baseline = async || drain(&documents).await;
        let measured = async || drain(backlog).await;
        report.compare(row, BASELINE, baseline, measured).await?;
    }
    let mut consumers = Consumers::start(location).await?;
    for (batch, least) in LEASES {
        let measure = async |is_baseline| {
            let backlog = if is_baseline { &documents } else { &entries };
            consumers.drain(backlog, scale, MOST, batch).await
        };
        let mut figures = report.rounds(&[true, false], measure).await?;
        let name = format!("{MOST} competing processes, leases of {batch}");
        report.rows.push(Row {
            figures: figures.remove(1),
            baseline: Some((BASELINE.to_owned(), figures.remove(0))),
            ..Row::new(name, "messages/s", Target::AtLeast(least))
        });
    }
    drop(consumers);
    costs(report, location, &many, &one).await?;
    lone(report, &many, &one).await
}

const BASELINE: &str = "a document each";

/// Writes of documents, and bytes, from enqueue to ack in batches.
async fn costs(
    report: &mut Report,
    location: &Location,
    many: &Arc<DocDbBackend>,
    one: &Arc<DocDbBackend>,
) -> Result<()> {
    let database = location.database().await?;
    let count = async |backend: &Arc<DocDbBackend>, name, cost: Cost| {
        // A queue of its own, so that all of it is read back. A deleted queue keeps its shape, so
        // each backend has another one.
        let queue = Queue::new(backend.clone(), name)?;
        fill(&queue, 1, Duration::ZERO).await?;
        let before = cost.read(&database).await?;
        fill(&queue, COUNTED, Duration::ZERO).await?;
        let stored = cost.read(&database).await?;
        let mut left = COUNTED + 1;
        while left > 0 {
            let acked = lease_and_ack((queue.clone(), BATCH)).await?;
            ensure!(acked > 0, "{left} of {COUNTED} messages are not ready");
            left -= acked;
        }
        let after = cost.read(&database).await?;
        let spent = if cost == Cost::Disk { stored } else { after } - before;
        queue_api::Admin::new(backend.clone())
            .delete_queue(name)
            .await?;
        Ok(spent / COUNTED as f64)
    };
    for (cost, what, unit, target) in [
        (
            Cost::Writes,
            "document writes a message",
            "writes",
            Target::None,
        ),
        (Cost::Oplog, "oplog a message", "bytes", Target::AtMost(0.6)),
        (
            Cost::Disk,
            "stored message with its index keys",
            "bytes",
            Target::AtMost(0.6),
        ),
    ] {
        let row = Row::new(what, unit, target);
        let baseline = async || count(one, "costs_documents", cost).await;
        let measured = async || count(many, "costs_entries", cost).await;
        report.compare(row, BASELINE, baseline, measured).await?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    Writes,
    Oplog,
    Disk,
}

impl Cost {
    async fn read(self, database: &Database) -> Result<f64> {
        let local = database.client().database("local");
        let status = async || anyhow::Ok(database.run_command(doc! { "serverStatus": 1 }).await?);
        Ok(match self {
            Self::Writes => {
                let status = status().await?;
                let documents = status.get_document("metrics")?.get_document("document")?;
                ["inserted", "updated", "deleted"]
                    .iter()
                    .map(|kind| number(documents, kind))
                    .sum::<Result<f64>>()?
            }
            Self::Oplog => {
                let stats = local.run_command(doc! { "collStats": "oplog.rs" }).await?;
                number(&stats, "size")?
            }
            Self::Disk => {
                // Data reaches the file with a checkpoint.
                database
                    .client()
                    .database("admin")
                    .run_command(doc! { "fsync": 1 })
                    .await?;
                let stats = database.run_command(doc! { "dbStats": 1 }).await?;
                number(&stats, "totalSize")?
            }
        })
    }
}

fn number(document: &Document, field: &str) -> Result<f64> {
    let value = document.get(field);
    let number = match value {
        Some(Bson::Int32(number)) => Some(f64::from(*number)),
        Some(Bson::Int64(number)) => Some(*number as f64),
        Some(Bson::Double(number)) => Some(*number),
        _ => None,
    };
    number.with_context(|| format!("{field} is {value:?}, which is no number"))
}

/// The latency of the calls of one caller with one message.
async fn lone(
    report: &mut Report,
    many: &Arc<DocDbBackend>,
    one: &Arc<DocDbBackend>,
) -> Result<()> {
    let [many, one] = [(many, "lone"), (one, "lone_document")]
        .map(|(backend, name)| Queue::new(backend.clone(), name));
    let (many, one) = (many?, one?);
    for queue in [&many, &one] {
        enqueue_millis(queue).await?;
        lease_and_ack_millis(queue).await?;
    }
    let both = async |queue: &Queue, is_enqueue| {
        let (mut enqueues, mut leases) = (Vec::new(), Vec::new());
        for _ in 0..LONE_CALLS {
            enqueues.push(enqueue_millis(queue).await?);
            leases.push(lease_and_ack_millis(queue).await?);
            // Nothing of one step is left to the next.
            pause(Duration::from_millis(1)).await;
        }
        Ok(quantile(if is_enqueue { &enqueues } else { &leases }, 0.5))
    };
    for (is_enqueue, what) in [(true, "enqueue"), (false, "lease + ack")] {
        let row = Row::new(
            format!("one message alone: {what}"),
            "ms",
            Target::AtMost(1.1),
        );
        let baseline = async || both(&one, is_enqueue).await;
        let measured = async || both(&many, is_enqueue).await;
        report.compare(row, BASELINE, baseline, measured).await?;
    }
    Ok(())
}

async fn enqueue_millis(queue: &Queue) -> Result<f64> {
    let message = message();
    let began = nanos();
    queue.enqueue(&message).await?;
    Ok((nanos() - began) as f64 / 1e6)
}

async fn lease_and_ack_millis(queue: &Queue) -> Result<f64> {
    let began = nanos();
    let delivery = queue.lease().await?.context("a message is ready")?;
    let outcome = queue.ack(&delivery.receipt).await?;
    ensure!(outcome.is_applied(), "the ack was {outcome:?}");
    Ok((nanos() - began) as f64 / 1e6)
}
