//! What the handle checks and cuts to size before a backend sees it.

use std::{
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{
    Delivery, EnqueueOutcome, Error, ErrorKind, LeaseAction, LeaseChange, LeaseOptions,
    LeaseOutcome, Limits, MAX_REASON_BYTES, MessageId, NewMessage, Queue, QueueBackend, QueueName,
    QueueStats, Receipt, Result, async_trait,
};
use queue_memory::MemoryBackend;

/// A memory backend with tight limits that keeps a record of the sizes it was called with, and
/// fails once it has been called too often.
#[derive(Debug)]
struct Narrow {
    inner: MemoryBackend,
    sizes: Mutex<Vec<usize>>,
    calls_left: Mutex<usize>,
}

impl Narrow {
    fn new() -> Arc<Self> {
        Self::failing_after(usize::MAX)
    }

    fn failing_after(calls: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryBackend::new(),
            sizes: Mutex::default(),
            calls_left: Mutex::new(calls),
        })
    }

    fn called_with(&self, size: usize) -> Result<()> {
        let mut calls_left = self.calls_left.lock().unwrap();
        if *calls_left == 0 {
            return Err(Error::new(ErrorKind::Unavailable, "test", "out of calls"));
        }
        *calls_left -= 1;
        self.sizes.lock().unwrap().push(size);
        Ok(())
    }

    fn sizes(&self) -> Vec<usize> {
        std::mem::take(&mut self.sizes.lock().unwrap())
    }
}

#[async_trait]
impl QueueBackend for Narrow {
    fn limits(&self) -> Limits {
        Limits {
            max_batch: 3,
            max_payload_bytes: 10,
            max_header_bytes: 6,
            max_visibility_timeout: Duration::from_secs(60),
            max_delay: Duration::from_secs(90),
        }
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        self.called_with(messages.len())?;
        self.inner.enqueue(queue, messages).await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        self.called_with(options.max_messages())?;
        self.inner.lease(queue, options).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        self.called_with(receipts.len())?;
        self.inner.ack(queue, receipts).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        self.called_with(changes.len())?;
        // One outcome short: a broken backend, for the test that the handle notices.
        let mut outcomes = self.inner.change(queue, changes).await?;
        outcomes.pop();
        Ok(outcomes)
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        self.inner.wait(queue, at_most).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.inner.stats(queue).await
    }
}

fn numbered(count: usize) -> Vec<NewMessage> {
    (0..count).map(|n| NewMessage::new(n.to_string())).collect()
}

/// Asserts that `outcome` is a refusal that says `why`, and that the backend was not called.
#[track_caller]
fn refused<T: std::fmt::Debug>(backend: &Narrow, outcome: Result<T>, why: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!error.is_retryable());
    assert!(error.to_string().contains(why), "{error}");
    assert!(backend.sizes().is_empty(), "the backend was called");
}

#[tokio::test]
async fn batches_are_cut_to_the_backends_size() -> Result<()> {
    let backend = Narrow::new();
    let queue = Queue::new(backend.clone(), "q")?;
    let outcomes = queue.enqueue_batch(&numbered(8)).await?;
    assert_eq!(outcomes, [EnqueueOutcome::Stored; 8]);
    assert_eq!(backend.sizes(), [3, 3, 2]);

    let deliveries = queue.lease_batch(&LeaseOptions::new(7)).await?;
    assert_eq!((deliveries.len(), backend.sizes()), (7, vec![3, 3, 1]));
    let receipts: Vec<_> = deliveries
        .into_iter()
        .map(|delivery| delivery.receipt)
        .collect();
    assert_eq!(
        queue.ack_batch(&receipts).await?,
        [LeaseOutcome::Applied; 7]
    );
    assert_eq!(backend.sizes(), [3, 3, 1]);

    // One is left: the first chunk that is not full says that there is no more.
    assert_eq!(queue.lease_batch(&LeaseOptions::new(100)).await?.len(), 1);
    assert_eq!(backend.sizes(), [3]);
    Ok(())
}

#[tokio::test]
async fn nothing_is_asked_of_a_backend_for_an_empty_batch() -> Result<()> {
    let backend = Narrow::new();
    let queue = Queue::new(backend.clone(), "q")?;
    assert!(queue.enqueue_batch(&[]).await?.is_empty());
    assert!(queue.ack_batch(&[]).await?.is_empty());
    assert!(queue.change_batch(&[]).await?.is_empty());
    assert!(backend.sizes().is_empty());
    Ok(())
}

#[tokio::test]
async fn messages_outside_the_limits_are_refused_whole() -> Result<()> {
    let backend = Narrow::new();
    let queue = Queue::new(backend.clone(), "q")?;
    let cases = [
        (
            NewMessage::new("12345678901"),
            "payload of 11 bytes, at most 10",
        ),
        (
            NewMessage::new("").with_header("key", "long"),
            "headers of 7 bytes, at most 6",
        ),
        (
            NewMessage::new("").with_header("", "x"),
            "header without a name",
        ),
        (
            NewMessage::new("").with_max_attempts(0),
            "max attempts of 0",
        ),
        (
            NewMessage::new("").with_visibility_timeout(Duration::ZERO),
            "1ms to 60s",
        ),
        (
            NewMessage::new("").with_visibility_timeout(Duration::from_micros(999)),
            "999µs",
        ),
        (
            NewMessage::new("").with_visibility_timeout(Duration::from_secs(61)),
            "61s",
        ),
        (NewMessage::new("").with_delay(Duration::MAX), "at most 90s"),
    ];
    for (bad, why) in cases {
        let batch = [NewMessage::new("fine"), bad];
        refused(&backend, queue.enqueue_batch(&batch).await, why);
        refused(
            &backend,
            queue.enqueue(&batch[1]).await,
            &batch[1].id.to_string(),
        );
    }
    let at_the_limits = NewMessage::new("1234567890")
        .with_header("key", "val")
        .with_visibility_timeout(Duration::from_secs(60))
        .with_delay(Duration::from_secs(90));
    assert_eq!(queue.enqueue(&at_the_limits).await?, EnqueueOutcome::Stored);
    Ok(())
}

#[tokio::test]
async fn leases_and_changes_outside_the_limits_are_refused() -> Result<()> {
    let backend = Narrow::new();
    let queue = Queue::new(backend.clone(), "q")?;
    refused(
        &backend,
        queue.lease_batch(&LeaseOptions::new(0)).await,
        "at least 1",
    );
    let forever = LeaseOptions::new(1).with_visibility_timeout(Duration::MAX);
    refused(
        &backend,
        queue.lease_batch(&forever).await,
        "visibility timeout",
    );
    let receipt = Receipt::new("r");
    refused(
        &backend,
        queue.extend(&receipt, Duration::ZERO).await,
        "visibility timeout of 0ns",
    );
    refused(
        &backend,
        queue.nack(&receipt, Duration::from_secs(91)).await,
        "delay of 91s",
    );
    let reason = "x".repeat(MAX_REASON_BYTES + 1);
    refused(
        &backend,
        queue.dead_letter(&receipt, reason).await,
        "reason of 4097 bytes",
    );
    let second_is_bad = [
        LeaseChange::release(receipt.clone()),
        LeaseChange {
            receipt,
            action: LeaseAction::Extend(Duration::MAX),
        },
    ];
    refused(
        &backend,
        queue.change_batch(&second_is_bad).await,
        "change 1",
    );
    Ok(())
}

#[tokio::test]
async fn what_was_leased_before_a_failure_is_given() -> Result<()> {
    let backend = Narrow::failing_after(4);
    let queue = Queue::new(backend.clone(), "q")?;
    queue.enqueue_batch(&numbered(8)).await?;
    let deliveries = queue.lease_batch(&LeaseOptions::new(8)).await?;
    assert_eq!(
        deliveries.len(),
        3,
        "one chunk came before the calls ran out"
    );
    let error = queue.lease_batch(&LeaseOptions::new(8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    Ok(())
}

#[tokio::test]
async fn a_backend_that_answers_out_of_step_is_an_error() -> Result<()> {
    let queue = Queue::new(Narrow::new(), "q")?;
    let error = queue
        .nack(&Receipt::new("r"), Duration::ZERO)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    Ok(())
}

#[test]
fn names_and_ids_are_checked() {
    for name in ["a", "0", "mail.out", "A-b_c.9", &"x".repeat(48)] {
        assert_eq!(QueueName::new(name).unwrap().as_str(), name);
    }
    for name in [
        "",
        ".a",
        "-a",
        "_a",
        "a b",
        "a/b",
        "a$b",
        "ä",
        "a\0",
        &"x".repeat(49),
    ] {
        let error = QueueName::new(name).unwrap_err();
        assert!(
            error.to_string().contains("1 to 48 ASCII letters"),
            "{error}"
        );
    }
    for id in ["a", " ", "ä b/c$", &"x".repeat(128)] {
        assert_eq!(MessageId::new(id).unwrap().as_str(), id);
    }
    for id in ["", "a\n", "\0", "\u{7f}", &"x".repeat(129)] {
        assert_eq!(
            MessageId::new(id).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
}

#[test]
fn an_error_says_what_and_keeps_its_cause_below() {
    let cause = std::io::Error::other("broken pipe");
    let error = Error::new(ErrorKind::Unavailable, "ack", "the store went away").with_source(cause);
    assert_eq!(error.to_string(), "ack: the store went away");
    assert_eq!(error.source().unwrap().to_string(), "broken pipe");
    assert_eq!(error.clone().operation(), "ack");
    let retryable = [
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::QueueFull,
    ];
    let final_ones = [ErrorKind::InvalidInput, ErrorKind::Denied, ErrorKind::Codec];
    assert!(
        retryable
            .iter()
            .all(|kind| Error::new(*kind, "op", "").is_retryable())
    );
    assert!(
        final_ones
            .iter()
            .all(|kind| !Error::new(*kind, "op", "").is_retryable())
    );
}
