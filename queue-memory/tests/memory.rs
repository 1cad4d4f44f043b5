//! What the memory backend promises beyond the contract.

use std::{sync::Arc, time::Duration};

use queue_api::{
    EnqueueOutcome, ErrorKind, LeaseOptions, MessageId, NewMessage, Queue, QueueAdmin, Result,
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
async fn an_hour_passes_in_no_time_and_wait_ends_to_the_millisecond() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
    queue.enqueue(&named("m")).await?;
    queue.lease().await?.expect("ready");
    let start = Instant::now();
    queue.wait(2 * HOUR).await?;
    assert_eq!(start.elapsed().as_millis(), HOUR.as_millis());
    assert_eq!(queue.lease().await?.expect("visible again").attempt, 2);

    queue.wait(Duration::from_millis(7)).await?;
    assert_eq!(
        (start.elapsed() - HOUR).as_millis(),
        7,
        "nothing came, so the time given passed"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn wait_follows_a_due_time_that_moves() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
    queue.enqueue(&named("m")).await?;
    let delivery = queue.lease().await?.expect("ready");
    let start = Instant::now();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.wait(2 * HOUR).await }
    });
    tokio::task::yield_now().await;
    queue
        .extend(&delivery.receipt, Duration::from_millis(50))
        .await?;
    waiting.await.expect("no panic")?;
    assert_eq!(start.elapsed().as_millis(), 50);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn wait_goes_on_over_a_deleted_queue() -> Result<()> {
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
    queue.enqueue(&named("n").with_delay(HOUR / 2)).await?;
    waiting.await.expect("no panic")?;
    assert_eq!(start.elapsed().as_secs(), HOUR.as_secs() / 2);
    Ok(())
}

#[tokio::test]
async fn a_full_queue_takes_what_fits_and_says_so() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new().with_max_depth(2)), "q")?;
    let batch = ["a", "b", "c"].map(named);
    let error = queue.enqueue_batch(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("2 of 3 were taken"), "{error}");
    assert_eq!(
        queue.enqueue(&batch[0]).await?,
        EnqueueOutcome::Duplicate,
        "that takes no room"
    );

    let delivery = queue.lease().await?.expect("ready");
    queue
        .dead_letter(&delivery.receipt, "takes room all the same")
        .await?;
    assert!(queue.enqueue(&batch[2]).await.is_err());
    let delivery = queue.lease().await?.expect("ready");
    queue.ack(&delivery.receipt).await?;
    let expected = [EnqueueOutcome::Duplicate, EnqueueOutcome::Stored];
    assert_eq!(
        queue
            .enqueue_batch(&[batch[0].clone(), batch[2].clone()])
            .await?,
        expected
    );
    let elsewhere = Queue::new(queue.backend().clone(), "other")?;
    assert_eq!(
        elsewhere.enqueue_batch(&batch[..2]).await?,
        [EnqueueOutcome::Stored; 2]
    );
    Ok(())
}

#[tokio::test]
async fn messages_of_one_millisecond_come_in_the_order_of_their_arrival() -> Result<()> {
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
