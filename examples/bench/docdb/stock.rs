//! A queue that is kept filled while others take from it.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use futures::{StreamExt, TryStreamExt, stream};
use queue_api::{NewMessage, Queue};
use queue_docdb::DocDbBackend;

use super::place::{Place, QUEUE};

/// More callers at a time do not make it faster: each waits for the disk.
const CALLERS: usize = 6;

const BATCH: u64 = 1000;

pub(super) struct Stock {
    pub(super) backend: Arc<DocDbBackend>,
    pub(super) queue: Queue,
    wanted: u64,
    there: u64,
}

impl Stock {
    /// A queue of so many ready messages.
    pub(super) async fn new(place: &Place, wanted: u64) -> anyhow::Result<Self> {
        Self::named(place.backend().await?, QUEUE, wanted).await
    }

    pub(super) async fn named(
        backend: Arc<DocDbBackend>,
        name: &str,
        wanted: u64,
    ) -> anyhow::Result<Self> {
        let mut stock = Self {
            queue: Queue::new(backend.clone(), name)?,
            backend,
            wanted,
            there: 0,
        };
        stock.take(0).await?;
        Ok(stock)
    }

    /// Says that so many messages were taken, and stores as many again.
    pub(super) async fn take(&mut self, taken: u64) -> anyhow::Result<()> {
        ensure!(
            taken == 0 || taken < self.there / 10 * 9,
            "{taken} messages were taken of {}, so some found none; the backlog is too small for \
             this server",
            self.there
        );
        self.there -= taken;
        fill(&self.queue, self.wanted - self.there, Duration::ZERO).await?;
        self.there = self.wanted;
        Ok(())
    }

    /// Makes it a queue of so many.
    pub(super) async fn grow(&mut self, wanted: u64) -> anyhow::Result<()> {
        self.wanted = wanted;
        self.take(0).await
    }
}

/// Stores so many messages.
pub(super) async fn fill(queue: &Queue, messages: u64, delay: Duration) -> anyhow::Result<()> {
    let batches = (0..messages)
        .step_by(BATCH as usize)
        .map(|from| async move {
            let batch: Vec<_> = (from..messages.min(from + BATCH))
                .map(|_| message().with_delay(delay))
                .collect();
            queue.enqueue_batch(&batch).await.map(drop)
        });
    stream::iter(batches)
        .buffer_unordered(CALLERS)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// 256 bytes that no compression makes fewer.
pub(super) fn message() -> NewMessage {
    NewMessage::new(payload().to_vec())
}

pub(super) fn payload() -> [u8; 256] {
    let mut payload = [0; 256];
    fastrand::fill(&mut payload);
    payload
}
