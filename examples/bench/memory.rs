//! The rows of the memory backend, on one thread.

use std::{fs, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::HumanCount;
use queue_api::{LeaseOptions, LeaseOutcome, NewMessage, Queue, Receipt};
use queue_memory::MemoryBackend;

use crate::{
    child::{Child, Role},
    report::{Report, Row, Target},
    window::{nanos, seconds_since},
};

pub(crate) const SECTIONS: [&str; 3] = ["size", "throughput", "backlog"];

const PAYLOAD: [u8; 256] = [7; 256];

/// Smaller, so that the time of the allocator does not hide that of the queue.
const SMALL_PAYLOAD: [u8; 16] = [7; 16];

#[derive(Debug)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// Messages that pass through the queue per round.
    messages: usize,
    /// Stored messages, in the baseline and beside it.
    few: usize,
    many: &'static [usize],
    /// Messages that are stored to measure their size.
    stored: usize,
}

pub(crate) const QUICK: Scale = Scale {
    rounds: 5,
    messages: 200_000,
    few: 10_000,
    many: &[100_000, 1_000_000],
    stored: 300_000,
};

pub(crate) const FULL: Scale = Scale {
    rounds: 9,
    messages: 500_000,
    few: 10_000,
    many: &[100_000, 1_000_000, 10_000_000],
    stored: 1_000_000,
};

pub(crate) async fn measure(sections: &[&str], scale: &Scale, report: &mut Report) -> Result<()> {
    for section in sections {
        report.section(section);
        match *section {
            "size" => size(scale, report).await?,
            "throughput" => throughput(scale, report).await?,
            "backlog" => backlog(scale, report).await?,
            other => bail!("{other} is not a section of memory"),
        }
    }
    Ok(())
}

/// Measured in processes of their own: memory that was freed still counts as resident.
async fn size(scale: &Scale, report: &mut Report) -> Result<()> {
    let messages = scale.stored;
    let row = Row::new(
        "each stored message over its payload",
        "bytes",
        Target::AtMost(400.0),
    );
    let store = async || Child::start(&Role::Store { messages })?.answer().await;
    report.measure(row, store).await
}

/// By how many bytes this process grows per stored message, without the payload.
pub(crate) async fn bytes_per_message(messages: usize) -> Result<f64> {
    let before = resident_bytes()?;
    let _queue = filled(messages, &PAYLOAD).await?;
    let grown = resident_bytes()?.saturating_sub(before);
    Ok(grown as f64 / messages as f64 - PAYLOAD.len() as f64)
}

fn resident_bytes() -> Result<u64> {
    let status =
        fs::read_to_string("/proc/self/status").context("the size is read on Linux only")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("VmRSS is missing")?.parse::<u64>()? * 1024)
}

async fn filled(messages: usize, payload: &[u8]) -> Result<Queue> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "bench")?;
    for _ in 0..messages / 1000 {
        queue.enqueue_batch(&batch_of(1000, payload)).await?;
    }
    Ok(queue)
}

fn batch_of(messages: usize, payload: &[u8]) -> Vec<NewMessage> {
    let message = |_| NewMessage::new(payload.to_vec());
    (0..messages).map(message).collect()
}

async fn throughput(scale: &Scale, report: &mut Report) -> Result<()> {
    let queue = filled(0, &PAYLOAD).await?;
    let targets = [
        (1, Target::AtLeast(250_000.0)),
        (10, Target::None),
        (100, Target::AtLeast(500_000.0)),
        (1000, Target::None),
    ];
    for (batch, target) in targets {
        let calls = match batch {
            1 => "single calls".to_owned(),
            _ => format!("batches of {batch}"),
        };
        let name = format!("{calls}: enqueue + lease + ack");
        let pass = async || {
            let began = nanos();
            match batch {
                1 => through_single_calls(&queue, scale.messages).await?,
                _ => through_batches(&queue, batch, &PAYLOAD, scale.messages).await?,
            }
            Ok(scale.messages as f64 / seconds_since(began))
        };
        pass().await?; // fills the caches
        let row = Row::new(name, "messages/s", target);
        report.measure(row, pass).await?;
    }
    Ok(())
}

async fn through_single_calls(queue: &Queue, messages: usize) -> Result<()> {
    for _ in 0..messages {
        queue.enqueue(&NewMessage::new(PAYLOAD.to_vec())).await?;
        let delivery = queue.lease().await?.context("one message is ready")?;
        let outcome = queue.ack(&delivery.receipt).await?;
        ensure!(outcome == LeaseOutcome::Applied, "the ack was {outcome:?}");
    }
    Ok(())
}

async fn through_batches(
    queue: &Queue,
    batch: usize,
    payload: &[u8],
    messages: usize,
) -> Result<()> {
    let options = LeaseOptions::new(batch);
    for _ in 0..messages / batch {
        queue.enqueue_batch(&batch_of(batch, payload)).await?;
        let deliveries = queue.lease_batch(&options).await?;
        ensure!(
            deliveries.len() == batch,
            "{} of {batch} leased",
            deliveries.len()
        );
        let receipts: Vec<Receipt> = deliveries.into_iter().map(|it| it.receipt).collect();
        let outcomes = queue.ack_batch(&receipts).await?;
        let all_applied = outcomes.iter().all(|it| *it == LeaseOutcome::Applied);
        ensure!(all_applied, "the acks were {outcomes:?}");
    }
    Ok(())
}

async fn backlog(scale: &Scale, report: &mut Report) -> Result<()> {
    let nanos_per_message = async |queue: &Queue| {
        let began = nanos();
        through_batches(queue, 100, &SMALL_PAYLOAD, scale.messages).await?;
        Ok((nanos() - began) as f64 / scale.messages as f64)
    };
    let few = filled(scale.few, &SMALL_PAYLOAD).await?;
    let baseline = format!("{} stored", HumanCount(scale.few as u64));
    for &size in scale.many {
        report.step(format!("storing {size} messages"));
        let many = filled(size, &SMALL_PAYLOAD).await?;
        for queue in [&few, &many] {
            nanos_per_message(queue).await?; // fills the caches
        }
        let name = format!("a message with {} stored", HumanCount(size as u64));
        let row = Row::new(name, "ns", Target::AtMost(3.0));
        let of_few = async || nanos_per_message(&few).await;
        let of_many = async || nanos_per_message(&many).await;
        report.compare(row, &baseline, of_few, of_many).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_round_has_a_figure() -> Result<()> {
        let scale = Scale {
            rounds: 2,
            messages: 2000,
            few: 1000,
            many: &[2000],
            stored: 1000,
        };
        let mut report = Report::new(2, 2);
        // Not `size`, which starts this program again; here that is the test.
        measure(&["throughput", "backlog"], &scale, &mut report).await?;
        assert_eq!(report.rows.len(), 5);
        for row in &report.rows {
            assert_eq!(row.figures.len(), 2, "{row:?}");
            assert!(row.figures.iter().all(|figure| *figure > 0.0), "{row:?}");
        }
        assert!(bytes_per_message(1000).await?.is_finite());
        Ok(())
    }
}
