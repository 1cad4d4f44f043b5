//! A backend that answers at once and stores nothing, so that what is measured is the way to a
//! backend and back.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use queue_api::{
    Bytes, Delivery, EnqueueOutcome, Headers, LeaseChange, LeaseOptions, LeaseOutcome, Limits,
    MessageId, NewMessage, QueueBackend, QueueName, QueueStats, Receipt, Result, async_trait,
};

/// There is always another message.
#[derive(Debug)]
pub(crate) struct Instant {
    payload: Bytes,
    leased: AtomicU64,
}

impl Instant {
    /// The payload is JSON, for workers.
    pub(crate) fn new() -> Self {
        Self {
            payload: format!("\"{}\"", "x".repeat(254)).into(),
            leased: AtomicU64::new(0),
        }
    }

    fn delivery(&self) -> Delivery {
        let number = self.leased.fetch_add(1, Ordering::Relaxed).to_string();
        Delivery {
            id: MessageId::new(&number).expect("digits are an id"),
            payload: self.payload.clone(),
            headers: Headers::new(),
            attempt: 1,
            max_attempts: 5,
            enqueued_at: SystemTime::UNIX_EPOCH,
            visibility_timeout: Duration::from_secs(30),
            lease_expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(60),
            receipt: Receipt::new(number),
        }
    }
}

#[async_trait]
impl QueueBackend for Instant {
    fn limits(&self) -> Limits {
        Limits::STANDARD
    }

    async fn enqueue(&self, _: &QueueName, messages: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        Ok(vec![EnqueueOutcome::Stored; messages.len()])
    }

    async fn lease(&self, _: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        Ok((0..options.max_messages())
            .map(|_| self.delivery())
            .collect())
    }

    async fn ack(&self, _: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        Ok(vec![LeaseOutcome::Applied; receipts.len()])
    }

    async fn change(&self, _: &QueueName, changes: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        Ok(vec![LeaseOutcome::Applied; changes.len()])
    }

    async fn wait(&self, _: &QueueName, _: Duration) -> Result<()> {
        Ok(())
    }

    async fn stats(&self, _: &QueueName) -> Result<QueueStats> {
        Ok(QueueStats::default())
    }
}
