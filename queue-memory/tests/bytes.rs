//! How much memory a queue takes. One test in a process of its own, because it counts what the
//! whole process allocates.

use std::{alloc::System, sync::Arc, time::Duration};

use cap::Cap;
use queue_api::{
    Bytes, LeaseOptions, ManualClock, NewMessage, PageOptions, Purge, Queue, QueueAdmin,
    QueueBackend, QueueStats, Receipt, Redrive, Result,
};
use queue_memory::MemoryBackend;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const PAYLOAD: usize = 256;
const MAX_OVER_PAYLOAD: usize = 400;
const MESSAGES: usize = 50_000;
const BATCH: usize = 100;
const NAMES: usize = 5_000;

/// Allowed once, for what does not grow with the messages.
const FIXED: usize = 150 << 10;

fn assert_small(state: &str, taken: usize, stored: usize) {
    let allowed = stored * (PAYLOAD + MAX_OVER_PAYLOAD) + FIXED;
    assert!(
        taken <= allowed,
        "{stored} {state} messages of {PAYLOAD} bytes take {taken} bytes; {allowed} are allowed"
    );
}

/// Leases everything. Returns the receipts and how many bytes they take themselves.
async fn lease_all(queue: &Queue) -> Result<(Vec<Receipt>, usize)> {
    let mut receipts = Vec::with_capacity(MESSAGES);
    let mut receipt_bytes = MESSAGES * size_of::<Receipt>();
    for _ in 0..MESSAGES / BATCH {
        let deliveries = queue.lease_batch(&LeaseOptions::new(BATCH)).await?;
        receipts.extend(deliveries.into_iter().map(|delivery| delivery.receipt));
    }
    let before = ALLOCATOR.allocated();
    let copies: Vec<_> = receipts.iter().map(|r| Receipt::new(r.as_str())).collect();
    receipt_bytes += ALLOCATOR.allocated() - before - copies.len() * size_of::<Receipt>();
    Ok((receipts, receipt_bytes))
}

/// Uses many queues, each of which is empty in the end.
async fn use_names(backend: &Arc<MemoryBackend>) -> Result<()> {
    for n in 0..NAMES {
        let queue = Queue::new(backend.clone(), format!("queue-{n}"))?;
        queue.wait(Duration::ZERO).await?;
        queue.enqueue(&NewMessage::new("")).await?;
        let delivery = queue.lease().await?.expect("a message is ready");
        assert!(queue.ack(&delivery.receipt).await?.is_applied());
        assert!(queue.lease().await?.is_none());
        let wait = backend.wait(queue.name(), Duration::MAX);
        let pending = polled_once(wait).await;
        assert!(pending, "the queue is empty");
    }
    Ok(())
}

/// Uses many queues at the same time, each of which is empty in the end.
async fn use_names_at_once(backend: &Arc<MemoryBackend>) -> Result<()> {
    let names = (0..NAMES).map(|n| format!("queue-{n}"));
    let queues: Vec<_> = names
        .map(|name| Queue::new(backend.clone(), name))
        .collect::<Result<_>>()?;
    let waits = queues.iter().map(|queue| queue.wait(Duration::MAX));
    let mut waits: Vec<_> = waits.map(Box::pin).collect();
    for wait in &mut waits {
        assert!(polled_once(wait).await, "the queue is empty");
    }
    drop(waits);
    for queue in &queues {
        queue.enqueue(&NewMessage::new("")).await?;
    }
    for queue in &queues {
        let name = queue.name();
        let delivery = queue.lease().await?.expect("a message is ready");
        assert!(
            queue
                .dead_letter(&delivery.receipt, "no")
                .await?
                .is_applied()
        );
        assert_eq!(backend.peek(name, 1).await?.len(), 0);
        let page = PageOptions::new(1);
        assert_eq!(backend.messages(name, &page).await?.len(), 0);
        assert_eq!(
            backend
                .dead_letters(name, &PageOptions::new(1))
                .await?
                .len(),
            1
        );
        assert_eq!(backend.redrive(name, &Redrive::All).await?, 1);
        assert_eq!(backend.purge(name, Purge::Live).await?, 1);
        assert_eq!(queue.stats().await?, QueueStats::default());
        backend.delete_queue(name).await?;
    }
    assert_eq!(backend.list_queues().await?.len(), 1, "that of the test");
    Ok(())
}

/// Polls `call` once and drops it. Says whether it was still pending.
async fn polled_once(call: impl Future) -> bool {
    tokio::select! {
        biased;
        _ = call => false,
        () = std::future::ready(()) => true,
    }
}

#[tokio::test]
async fn memory_follows_what_the_queues_hold() -> Result<()> {
    let clock = Arc::new(ManualClock::new());
    let backend = Arc::new(MemoryBackend::new().with_clock(clock.clone()));
    let queue = Queue::new(backend.clone(), "q")?;
    let before = ALLOCATOR.allocated();
    let taken = || ALLOCATOR.allocated() - before;

    for batch in 1..=MESSAGES / BATCH {
        let payload = || Bytes::copy_from_slice(&[7; PAYLOAD]);
        let messages = (0..BATCH).map(|_| NewMessage::new(payload()));
        queue.enqueue_batch(&messages.collect::<Vec<_>>()).await?;
        // After each batch, because a hash table that has just grown is half empty.
        assert_small("ready", taken(), batch * BATCH);
    }

    let (receipts, receipt_bytes) = lease_all(&queue).await?;
    assert_eq!(receipts.len(), MESSAGES);
    assert_small("leased", taken() - receipt_bytes, MESSAGES);

    // One message stays, after 49,999 are gone.
    queue.ack_batch(&receipts[..MESSAGES - 1]).await?;
    drop(receipts);
    assert_eq!(queue.stats().await?.leased, 1);
    assert_small("remaining", taken(), 1);

    // A single call makes dead letters of many.
    let exhausted = |_| NewMessage::new("").with_max_attempts(1);
    let exhausted: Vec<_> = (0..MESSAGES).map(exhausted).collect();
    queue.enqueue_batch(&exhausted).await?;
    drop(exhausted);
    drop(lease_all(&queue).await?);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(queue.lease_batch(&LeaseOptions::new(2)).await?.len(), 1);
    let purged = backend.purge(queue.name(), Purge::Dead).await?;
    assert_eq!(purged, MESSAGES as u64);
    assert_small("remaining, after dead letters,", taken(), 1);

    use_names(&backend).await?;
    assert_small("remaining, with names used once,", taken(), 1);
    use_names_at_once(&backend).await?;
    assert_small("remaining, with names used at once,", taken(), 1);
    Ok(())
}
