//! What a stored message takes, beyond its payload.

use std::{fs, sync::Arc};

use anyhow::Context as _;
use queue_api::Queue;
use queue_memory::MemoryBackend;

use super::{PAYLOAD, Scale, message};
use crate::{
    child::{Child, Role},
    findings::Findings,
    progress::Progress,
    row::{Row, Unit},
    samples::Samples,
};

/// In processes of their own: one that has stored and forgotten messages has memory left over.
pub(super) fn measure(
    scale: &Scale,
    progress: &Progress,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let rounds = scale.rounds.min(3);
    let messages = scale.weighed;
    let mut bytes = Samples::default();
    for round in 0..rounds {
        progress.round(round, rounds, "storing");
        bytes.push(Child::start(&Role::Store { messages })?.hear()?);
    }
    let row = Row::new("size", "each stored message over its payload", Unit::Bytes);
    findings.rows.push(row.measured(bytes).at_most(300.0));
    Ok(())
}

/// By how many bytes this process grows for each of so many messages, their payloads aside.
pub(crate) async fn bytes_for_each(messages: usize) -> anyhow::Result<f64> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "weighed")?;
    let before = resident_bytes()?;
    for _ in 0..messages / 1000 {
        let batch: Vec<_> = (0..1000).map(|_| message(&PAYLOAD)).collect();
        queue.enqueue_batch(&batch).await?;
    }
    let grown = resident_bytes()?.saturating_sub(before) as f64;
    Ok(grown / messages as f64 - PAYLOAD.len() as f64)
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("only Linux tells the size")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib
        .context("Linux tells the resident size")?
        .parse::<u64>()?
        << 10)
}
