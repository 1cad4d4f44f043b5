//! A queue that is filled up again after each round.

use std::{iter::repeat_with, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use queue_api::{LeaseOptions, LeaseOutcome, NewMessage, Queue};
use queue_docdb::DocDbBackend;

use crate::window::{Window, work};

/// Faster than fewer callers, and no slower than more.
const CALLERS: usize = 6;

const BATCH: u64 = 1000;

pub(super) struct Backlog {
    pub(super) queue: Queue,
    /// How many messages are ready at the start of a round.
    size: u64,
}

impl Backlog {
    pub(super) async fn new(backend: &Arc<DocDbBackend>, queue: &str, size: u64) -> Result<Self> {
        let queue = Queue::new(backend.clone(), queue)?;
        fill(&queue, size, Duration::ZERO).await?;
        Ok(Self { queue, size })
    }

    pub(super) async fn grow(&mut self, size: u64) -> Result<()> {
        fill(&self.queue, size - self.size, Duration::ZERO).await?;
        self.size = size;
        Ok(())
    }

    /// Messages per second that `tasks` tasks take with `step` from this queue.
    pub(super) async fn drain<T, S>(
        &self,
        counted: Duration,
        tasks: usize,
        context: &T,
        step: impl Fn(T) -> S + Copy + Send + 'static,
    ) -> Result<f64>
    where
        T: Clone + Send + Sync + 'static,
        S: Future<Output = Result<u64>> + Send,
    {
        let work = work(Window::after_warm_up(counted), tasks, context, step).await?;
        self.refill(work.total).await?;
        Ok(work.rate)
    }

    pub(super) async fn refill(&self, taken: u64) -> Result<()> {
        ensure_enough(taken, self.size)?;
        fill(&self.queue, taken, Duration::ZERO).await
    }
}

/// Fails if a round may have measured calls that found nothing.
pub(super) fn ensure_enough(taken: u64, backlog: u64) -> Result<()> {
    ensure!(
        taken < backlog / 10 * 9,
        "a round took {taken} of {backlog} messages; it must take less than nine tenths"
    );
    Ok(())
}

pub(super) async fn fill(queue: &Queue, messages: u64, delay: Duration) -> Result<()> {
    let store = async |batch| {
        let message = |_| message().with_delay(delay);
        let batch: Vec<_> = (0..batch).map(message).collect();
        queue.enqueue_batch(&batch).await?;
        Ok(())
    };
    in_batches(messages, store).await
}

/// Calls `store` with the sizes of batches that add up to `messages`, several at a time.
pub(super) async fn in_batches(
    messages: u64,
    store: impl AsyncFn(u64) -> Result<()>,
) -> Result<()> {
    let starts = (0..messages).step_by(BATCH as usize);
    stream::iter(starts.map(|start| store(BATCH.min(messages - start))))
        .buffer_unordered(CALLERS)
        .try_collect()
        .await
}

pub(super) fn message() -> NewMessage {
    NewMessage::new(payload())
}

/// A JSON string of 256 bytes, random so that it does not compress.
pub(super) fn payload() -> String {
    let characters = repeat_with(fastrand::alphanumeric).take(254);
    format!("\"{}\"", characters.collect::<String>())
}

/// Leases and acks a batch. Returns its size.
pub(super) async fn lease_and_ack((queue, batch): (Queue, usize)) -> Result<u64> {
    let deliveries = queue.lease_batch(&LeaseOptions::new(batch)).await?;
    let receipts: Vec<_> = deliveries.into_iter().map(|it| it.receipt).collect();
    let outcomes = queue.ack_batch(&receipts).await?;
    let all_applied = outcomes.iter().all(|it| *it == LeaseOutcome::Applied);
    ensure!(all_applied, "the acks were {outcomes:?}");
    Ok(outcomes.len() as u64)
}
