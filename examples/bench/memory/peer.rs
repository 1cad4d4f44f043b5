//! What the memory backend is compared with: omniqueue's queue in memory, a channel without
//! leases, ids or delays.

use std::time::Duration;

use anyhow::ensure;
use omniqueue::{
    Delivery,
    backends::{InMemoryBackend, InMemoryConsumer, InMemoryProducer},
};

pub(super) struct Peer {
    producer: InMemoryProducer,
    consumer: InMemoryConsumer,
}

impl Peer {
    pub(super) async fn new() -> anyhow::Result<Self> {
        let (producer, consumer) = InMemoryBackend::builder().build_pair().await?;
        Ok(Self { producer, consumer })
    }

    /// Sends, receives and acks so many messages, a batch at a time.
    pub(super) async fn pass(
        &mut self,
        payload: &[u8],
        batch: usize,
        messages: usize,
    ) -> anyhow::Result<()> {
        for _ in 0..messages / batch {
            for _ in 0..batch {
                self.producer.send_raw(payload).await?;
            }
            if batch == 1 {
                ack(self.consumer.receive().await?).await?;
                continue;
            }
            let received = self.consumer.receive_all(batch, Duration::from_secs(10));
            let received = received.await?;
            ensure!(received.len() == batch, "so many were sent");
            for delivery in received {
                ack(delivery).await?;
            }
        }
        Ok(())
    }
}

async fn ack(delivery: Delivery) -> anyhow::Result<()> {
    // The error holds the delivery, which is neither shown nor sent elsewhere.
    delivery.ack().await.map_err(|(error, _)| error.into())
}
