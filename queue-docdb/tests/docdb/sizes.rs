//! Large messages and large batches.

use queue_api::{
    DeadLetterPage, EnqueueOutcome, LeaseOptions, Limits, NewMessage, QueueAdmin, QueueBackend,
};

use crate::fixture::{Fixture, lease, message, name};

#[tokio::test]
async fn payloads_at_the_limit_pass_in_one_batch() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let Limits {
        max_payload_bytes,
        max_header_bytes,
        ..
    } = Limits::STANDARD;
    // More than one message of the wire protocol takes, and than a batch of a cursor holds.
    let messages: Vec<NewMessage> = (0..7)
        .map(|index| {
            let mut sent = message(&format!("m{index}"));
            sent.payload = vec![index; max_payload_bytes].into();
            sent.with_header("h", "x".repeat(max_header_bytes - 1))
        })
        .collect();
    let outcomes = queue.enqueue_batch(&messages).await.unwrap();
    assert_eq!(outcomes, [EnqueueOutcome::Stored; 7]);
    let deliveries = lease(&queue, 7).await;
    assert_eq!(deliveries.len(), 7);
    for (sent, delivery) in messages.iter().zip(&deliveries) {
        assert!(sent.payload == delivery.payload && sent.headers == delivery.headers);
    }
}

#[tokio::test]
async fn a_full_batch_of_long_ids_passes_everywhere() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let messages: Vec<NewMessage> = (0..1000)
        .map(|index| {
            let id = format!("{index:0>128}");
            NewMessage::new("").with_id(queue_api::MessageId::new(&id).unwrap())
        })
        .collect();
    queue.enqueue_batch(&messages).await.unwrap();
    let receipts: Vec<_> = lease(&queue, 1000)
        .await
        .into_iter()
        .map(|d| d.receipt)
        .collect();
    assert_eq!(receipts.len(), 1000);
    let reason = "r".repeat(queue_api::MAX_REASON_BYTES);
    let changes: Vec<_> = receipts[..500]
        .iter()
        .map(|receipt| queue_api::LeaseChange::dead_letter(receipt.clone(), reason.as_str()))
        .collect();
    let outcomes = queue.change_batch(&changes).await.unwrap();
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == queue_api::LeaseOutcome::Applied)
    );
    queue.ack_batch(&receipts).await.unwrap();
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.dead, stats.leased), (500, 0));
}

#[tokio::test]
async fn everything_is_a_number_of_messages_too() {
    let fixture = Fixture::new().await;
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    queue.enqueue_batch(&["a", "b"].map(message)).await.unwrap();
    let all = LeaseOptions::new(usize::MAX);
    assert_eq!(backend.peek(&name(), usize::MAX).await.unwrap().len(), 2);
    // Past the handle, which would ask for less at a time.
    let deliveries = backend.lease(&name(), &all).await.unwrap();
    assert_eq!(deliveries.len(), 2);
    queue
        .dead_letter(&deliveries[0].receipt, "no")
        .await
        .unwrap();
    let page = DeadLetterPage::new(usize::MAX);
    assert_eq!(backend.dead_letters(&name(), &page).await.unwrap().len(), 1);
    assert_eq!(
        backend.lease(&name(), &LeaseOptions::new(0)).await.unwrap(),
        []
    );
    assert_eq!(backend.peek(&name(), 0).await.unwrap(), []);
    assert_eq!(backend.enqueue(&name(), &[]).await.unwrap(), []);
    assert_eq!(backend.ack(&name(), &[]).await.unwrap(), []);
    assert_eq!(backend.change(&name(), &[]).await.unwrap(), []);
}
