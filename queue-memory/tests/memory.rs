//! What the memory backend guarantees beyond the contract.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use queue_api::{
    Clock, EnqueueOutcome, ErrorKind, LeaseOptions, LeaseOutcome, ManualClock, MessageId,
    NewMessage, Queue, QueueAdmin, QueueBackend, Result, async_trait,
};
use queue_memory::MemoryBackend;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

fn named(id: &str) -> NewMessage {
    NewMessage::new("")
        .with_id(MessageId::new(id).unwrap())
        .with_visibility_timeout(HOUR)
}

#[tokio::test(start_paused = true)]
async fn paused_time_skips_an_hour_and_wait_returns_at_the_millisecond() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
    queue.enqueue(&named("m")).await?;
    queue.lease().await?.expect("ready");
    let start = Instant::now();
    queue.wait(2 * HOUR).await?;
    assert_eq!(start.elapsed().as_millis(), HOUR.as_millis());
    assert_eq!(queue.lease().await?.expect("ready again").attempt, 2);

    queue.wait(Duration::from_millis(7)).await?;
    assert_eq!(
        (start.elapsed() - HOUR).as_millis(),
        7,
        "nothing was enqueued, so the whole time passes"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn wait_follows_a_ready_time_that_moves() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
    queue.enqueue(&named("m")).await?;
    let delivery = queue.lease().await?.expect("ready");
    let start = Instant::now();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.wait(2 * HOUR).await }
    });
    tokio::task::yield_now().await;
    assert!(
        queue
            .extend(&delivery.receipt, Duration::from_millis(50))
            .await?
            .is_applied()
    );
    waiting.await.expect("no panic")?;
    assert_eq!(start.elapsed().as_millis(), 50);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn wait_continues_after_its_queue_is_deleted() -> Result<()> {
    let backend = MemoryBackend::new();
    let queue = Queue::new(Arc::new(backend.clone()), "q")?;
    queue.enqueue(&named("m").with_delay(HOUR)).await?;
    let start = Instant::now();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.wait(2 * HOUR).await }
    });
    tokio::task::yield_now().await;
    backend.delete_queue(queue.name()).await?;
    tokio::task::yield_now().await;
    assert_eq!(backend.list_queues().await?, [], "a wait makes no queue");
    queue.enqueue(&named("n").with_delay(HOUR / 2)).await?;
    waiting.await.expect("no panic")?;
    assert_eq!(start.elapsed().as_secs(), HOUR.as_secs() / 2);
    Ok(())
}

#[tokio::test]
async fn a_full_queue_stores_what_fits_and_fails() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new().with_max_depth(2)), "q")?;
    let batch = ["a", "b", "c"].map(named);
    let error = queue.enqueue_batch(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert!(error.is_retryable());
    assert!(
        error.to_string().contains("2 of 3 were accepted"),
        "{error}"
    );
    assert_eq!(
        queue.enqueue(&batch[0]).await?,
        EnqueueOutcome::Duplicate,
        "a duplicate needs no room"
    );

    let delivery = queue.lease().await?.expect("ready");
    assert!(
        queue
            .dead_letter(&delivery.receipt, "dead letters count too")
            .await?
            .is_applied()
    );
    assert!(queue.enqueue(&batch[2]).await.is_err());
    let delivery = queue.lease().await?.expect("ready");
    assert!(queue.ack(&delivery.receipt).await?.is_applied());
    let expected = [EnqueueOutcome::Duplicate, EnqueueOutcome::Stored];
    assert_eq!(
        queue
            .enqueue_batch(&[batch[0].clone(), batch[2].clone()])
            .await?,
        expected
    );
    let other = Queue::new(queue.backend().clone(), "other")?;
    assert_eq!(
        other.enqueue_batch(&batch[..2]).await?,
        [EnqueueOutcome::Stored; 2]
    );
    Ok(())
}

#[tokio::test]
async fn messages_of_one_millisecond_are_leased_in_order_of_arrival() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
    let batch = ["c", "a", "d", "b"].map(named);
    queue.enqueue_batch(&batch).await?;
    let ids = queue
        .lease_batch(&LeaseOptions::new(4))
        .await?
        .into_iter()
        .map(|d| d.id);
    assert_eq!(ids.collect::<Vec<_>>(), batch.map(|message| message.id));
    Ok(())
}

#[tokio::test]
async fn receipts_of_two_backends_differ() -> Result<()> {
    let mut receipts = Vec::new();
    for _ in 0..2 {
        let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
        queue.enqueue(&named("m")).await?;
        receipts.push(queue.lease().await?.expect("ready").receipt);
    }
    assert_ne!(receipts[0], receipts[1]);
    Ok(())
}

#[derive(Debug, Default)]
struct SettableClock(AtomicU64);

#[async_trait]
impl Clock for SettableClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    async fn sleep_until(&self, _: SystemTime) {}
}

#[tokio::test]
async fn time_stands_still_while_the_clock_is_back() -> Result<()> {
    let clock = Arc::new(SettableClock::default());
    let backend = MemoryBackend::new().with_clock(clock.clone());
    let queue = Queue::new(Arc::new(backend), "q")?;
    clock.0.store(7200, Ordering::Relaxed);
    queue.enqueue(&named("m")).await?;

    clock.0.store(0, Ordering::Relaxed);
    queue.lease().await?.expect("still ready");
    clock.0.store(7200 + 3599, Ordering::Relaxed);
    assert!(queue.lease().await?.is_none(), "leased for an hour");
    clock.0.store(7200 + 3600, Ordering::Relaxed);
    queue.lease().await?.expect("ready again");
    Ok(())
}

/// A clock that moves each time it is read.
#[derive(Debug)]
struct MovingClock(ManualClock, Duration);

#[async_trait]
impl Clock for MovingClock {
    fn now(&self) -> SystemTime {
        self.0.advance(self.1);
        self.0.now()
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        self.0.sleep_until(deadline).await;
    }
}

#[tokio::test]
async fn leases_that_end_during_a_call_return_no_message_twice() -> Result<()> {
    const MILLISECOND: Duration = Duration::from_millis(1);
    let batch = MemoryBackend::new().limits().max_batch.get();
    let stored = 2 * batch - 1;
    for (moves, visible) in [(0, 1), (1, 1), (2, 1), (1, 2), (1, 9), (50, 1)] {
        for requested in [batch + 1, stored, stored + 1, 5 * batch] {
            let case =
                format!("{requested} for {visible} ms, each reading moves the clock by {moves} ms");
            let clock = MovingClock(ManualClock::new(), moves * MILLISECOND);
            let backend = MemoryBackend::new().with_clock(Arc::new(clock));
            let queue = Queue::new(Arc::new(backend), "q")?;
            let messages: Vec<_> = (0..stored).map(|n| named(&n.to_string())).collect();
            queue.enqueue_batch(&messages).await?;

            let short = LeaseOptions::new(requested).with_visibility_timeout(visible * MILLISECOND);
            let leased = queue.lease_batch(&short).await?;
            let ids: HashSet<_> = leased.iter().map(|each| &each.id).collect();
            assert_eq!(ids.len(), leased.len(), "{case}");
            assert_eq!(leased.len(), requested.min(stored), "{case}");
            // No receipt is superseded.
            let receipts: Vec<_> = leased.into_iter().map(|each| each.receipt).collect();
            let acked = queue.ack_batch(&receipts).await?;
            let is_applied = |outcome: &LeaseOutcome| outcome.is_applied();
            assert!(acked.iter().all(is_applied), "{case}");
        }
    }
    Ok(())
}
