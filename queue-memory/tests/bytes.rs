//! What a queue takes of memory, counted by the allocator. One test, in a process of its own, since
//! all threads allocate from one heap.

use std::{alloc::System, sync::Arc};

use cap::Cap;
use queue_api::{Bytes, LeaseOptions, NewMessage, Queue, Receipt, Result};
use queue_memory::MemoryBackend;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const PAYLOAD: usize = 256;
const OVER_PAYLOAD: usize = 300;
const MESSAGES: usize = 50_000;
const BATCH: usize = 100;

/// What is there once, however much the queue holds.
const FIXED: usize = 150 << 10;

fn assert_small(state: &str, taken: usize, stored: usize) {
    let allowed = stored * (PAYLOAD + OVER_PAYLOAD) + FIXED;
    assert!(
        taken <= allowed,
        "{stored} {state} messages of {PAYLOAD} bytes take {taken}, {allowed} are allowed"
    );
}

/// Leases everything, in its turn, and gives the receipts with what they take themselves.
async fn lease_all(queue: &Queue) -> Result<(Vec<Receipt>, usize)> {
    let mut receipts = Vec::with_capacity(MESSAGES);
    let mut of_receipts = MESSAGES * size_of::<Receipt>();
    for _ in 0..MESSAGES / BATCH {
        let deliveries = queue.lease_batch(&LeaseOptions::new(BATCH)).await?;
        receipts.extend(deliveries.into_iter().map(|delivery| delivery.receipt));
    }
    let before = ALLOCATOR.allocated();
    let copies: Vec<_> = receipts.iter().map(|r| Receipt::new(r.as_str())).collect();
    of_receipts += ALLOCATOR.allocated() - before - copies.len() * size_of::<Receipt>();
    Ok((receipts, of_receipts))
}

#[tokio::test]
async fn memory_follows_what_the_queue_holds() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
    let before = ALLOCATOR.allocated();
    let taken = || ALLOCATOR.allocated() - before;

    for batch in 1..=MESSAGES / BATCH {
        let payload = || Bytes::copy_from_slice(&[7; PAYLOAD]);
        let messages = (0..BATCH).map(|_| NewMessage::new(payload()));
        queue.enqueue_batch(&messages.collect::<Vec<_>>()).await?;
        // Each time, because a table that has just grown is largely empty.
        assert_small("ready", taken(), batch * BATCH);
    }

    let (receipts, of_receipts) = lease_all(&queue).await?;
    assert_eq!(receipts.len(), MESSAGES);
    assert_small("leased", taken() - of_receipts, MESSAGES);

    // The last one stays, behind all that is gone.
    queue.ack_batch(&receipts[..MESSAGES - 1]).await?;
    drop(receipts);
    assert_eq!(queue.stats().await?.leased, 1);
    assert_small("left over", taken(), 1);
    Ok(())
}
