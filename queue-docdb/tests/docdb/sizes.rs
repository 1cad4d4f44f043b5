//! The largest batches, and empty ones.

use queue_api::{LeaseOptions, NewMessage, PageOptions, QueueAdmin, QueueBackend};

use crate::fixture::{Fixture, applied, lease, message, name};

tests! {
    on_one_thread:
        every_call_takes_a_full_batch_of_long_ids,
        every_call_takes_any_number_of_messages
}

async fn every_call_takes_a_full_batch_of_long_ids() {
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

async fn every_call_takes_any_number_of_messages() {
    let fixture = Fixture::new().await;
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    queue.enqueue_batch(&["a", "b"].map(message)).await.unwrap();
    let all = LeaseOptions::new(usize::MAX);
    assert_eq!(backend.peek(&name(), usize::MAX).await.unwrap().len(), 2);
    // Without the handle, which would split the call.
    let deliveries = backend.lease(&name(), &all).await.unwrap();
    assert_eq!(deliveries.len(), 2);
    applied(queue.dead_letter(&deliveries[0].receipt, "no")).await;
    let page = PageOptions::new(usize::MAX);
    assert_eq!(backend.dead_letters(&name(), &page).await.unwrap().len(), 1);
    assert_eq!(backend.messages(&name(), &page).await.unwrap().len(), 1);
    assert_eq!(
        backend.lease(&name(), &LeaseOptions::new(0)).await.unwrap(),
        []
    );
    assert_eq!(backend.peek(&name(), 0).await.unwrap(), []);
    let none = PageOptions::new(0);
    assert_eq!(backend.messages(&name(), &none).await.unwrap().len(), 0);
    assert_eq!(backend.enqueue(&name(), &[]).await.unwrap(), []);
    assert_eq!(backend.ack(&name(), &[]).await.unwrap(), []);
    assert_eq!(backend.change(&name(), &[]).await.unwrap(), []);
}
