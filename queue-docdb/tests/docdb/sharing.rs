//! Several instances on one queue.

use std::{collections::HashSet, sync::Arc, time::Duration};

use queue_api::{ErrorKind, LeaseChange, LeaseOutcome, ManualClock, Purge, QueueAdmin, Receipt};

use crate::fixture::{Fixture, MINUTE, applied, ids, lease, message, name, queue_of};

tests! {
    on_one_thread:
        a_queue_works_after_another_instance_has_deleted_it,
        reading_an_unused_queue_does_not_create_it,
        clocks_that_disagree_do_not_break_exclusion_or_receipts;
    on_threads:
        competing_claims_deliver_everything_once,
        concurrent_acks_of_one_batch_apply_each_receipt_at_most_once,
        a_batch_of_acks_is_not_lost_because_of_an_ack_of_one_of_them,
        concurrent_purges_remove_everything,
        a_nack_is_not_lost_because_its_message_is_acked_later
}

async fn a_queue_works_after_another_instance_has_deleted_it() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue.enqueue(&message("a")).await.unwrap();
    let other = fixture.another_backend(fixture.clock.clone()).await;
    other.delete_queue(&name()).await.unwrap();

    // This instance takes the indexes for made. Each call must notice that they are not.
    queue.enqueue(&message("b")).await.unwrap();
    assert_eq!(ids(&lease(&queue, 9).await), ["b"]);
    other.delete_queue(&name()).await.unwrap();
    queue.enqueue(&message("c")).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().ready, 1);
    other.delete_queue(&name()).await.unwrap();
    queue.enqueue(&message("d")).await.unwrap();
    queue.wait(MINUTE).await.unwrap();
    let names = fixture.documents().list_index_names().await.unwrap();
    assert_eq!(
        names.into_iter().collect::<HashSet<_>>(),
        HashSet::from([
            "_id_".to_owned(),
            "visible_at_1".to_owned(),
            "ids_1".to_owned(),
            "dead_key_1".to_owned(),
            "parted_1".to_owned(),
        ])
    );
}

async fn reading_an_unused_queue_does_not_create_it() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    assert!(lease(&queue, 9).await.is_empty());
    assert_eq!(queue.stats().await.unwrap().ready, 0);
    assert_eq!(fixture.backend.peek(&name(), 9).await.unwrap(), []);
    assert_eq!(
        queue.ack(&Receipt::new("x")).await.unwrap(),
        LeaseOutcome::Lost
    );
    assert_eq!(fixture.raw.list_collection_names().await.unwrap(), [""; 0]);
}

/// By the fast clock, a lease of the slow clock has expired. The receipt of the superseded lease
/// is lost by every clock.
async fn clocks_that_disagree_do_not_break_exclusion_or_receipts() {
    let fixture = Fixture::new().await;
    let fast_clock = Arc::new(ManualClock::new());
    fast_clock.advance(10 * MINUTE);
    let fast = queue_of(&fixture.another_backend(fast_clock).await);
    let slow = fixture.queue();
    slow.enqueue(&message("a")).await.unwrap();
    let first = slow.lease().await.unwrap().expect("it is ready").receipt;
    let second = fast.lease().await.unwrap().expect("the lease has expired");
    assert_eq!(second.attempt, 2);
    assert_eq!(slow.ack(&first).await.unwrap(), LeaseOutcome::Lost);
    let extended = slow.extend(&first, MINUTE).await.unwrap();
    assert_eq!(extended, LeaseOutcome::Lost);
    assert!(slow.lease().await.unwrap().is_none());
    let acked = slow.ack(&second.receipt).await.unwrap();
    assert_eq!(acked, LeaseOutcome::Applied);
}

async fn competing_claims_deliver_everything_once() {
    const MESSAGES: usize = 600;
    let fixture = Fixture::new().await;
    let messages: Vec<_> = (0..MESSAGES).map(|n| message(&format!("m{n}"))).collect();
    fixture.queue().enqueue_batch(&messages).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for batch in [1, 3, 10, 40, 40, 100] {
        let queue = queue_of(&fixture.another_backend(fixture.clock.clone()).await);
        tasks.spawn(async move {
            let mut acked = Vec::new();
            // A lease that lost all its claims is empty, though messages are ready.
            while queue.stats().await.unwrap().ready > 0 {
                let deliveries = lease(&queue, batch).await;
                assert!(deliveries.len() <= batch);
                for delivery in &deliveries {
                    assert_eq!(delivery.attempt, 1);
                    assert_eq!(delivery.payload, format!("payload of {}", delivery.id));
                }
                let receipts: Vec<_> = deliveries.iter().map(|d| d.receipt.clone()).collect();
                let outcomes = queue.ack_batch(&receipts).await.unwrap();
                assert_eq!(outcomes, vec![LeaseOutcome::Applied; receipts.len()]);
                acked.extend(deliveries.into_iter().map(|delivery| delivery.id));
            }
            acked
        });
    }
    let acked: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(acked.len(), MESSAGES);
    assert_eq!(acked.into_iter().collect::<HashSet<_>>().len(), MESSAGES);
}

async fn concurrent_acks_of_one_batch_apply_each_receipt_at_most_once() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let messages: Vec<_> = (0..50).map(|index| message(&format!("m{index}"))).collect();
    queue.enqueue_batch(&messages).await.unwrap();
    let receipts: Vec<_> = lease(&queue, 50)
        .await
        .into_iter()
        .map(|d| d.receipt)
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (queue, receipts) = (queue.clone(), receipts.clone());
        tasks.spawn(async move { queue.ack_batch(&receipts).await });
    }
    let mut outcomes = Vec::new();
    for answer in tasks.join_all().await {
        match answer {
            Ok(answer) => outcomes.push(answer),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    for index in 0..receipts.len() {
        let applied = outcomes
            .iter()
            .filter(|of| of[index] == LeaseOutcome::Applied)
            .count();
        assert!(applied <= 1, "{index}: {applied}");
    }
    assert_eq!(queue.stats().await.unwrap().leased, 0);
}

async fn a_batch_of_acks_is_not_lost_because_of_an_ack_of_one_of_them() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    for round in 0..20 {
        let messages: Vec<_> = (0..200)
            .map(|index| message(&format!("r{round}-{index}")))
            .collect();
        queue.enqueue_batch(&messages).await.unwrap();
        let receipts: Vec<_> = lease(&queue, 200)
            .await
            .into_iter()
            .map(|d| d.receipt)
            .collect();
        let (one, other) = (receipts[100].clone(), queue.clone());
        let single = tokio::spawn(async move { other.ack(&one).await.unwrap() });
        let batch = queue.ack_batch(&receipts).await;
        let single = single.await.unwrap();
        match batch {
            Ok(outcomes) => {
                let lost = outcomes
                    .iter()
                    .filter(|outcome| **outcome == LeaseOutcome::Lost)
                    .count();
                assert_eq!(lost, usize::from(single == LeaseOutcome::Applied));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
}

async fn concurrent_purges_remove_everything() {
    let fixture = Fixture::new().await;
    for chunk in 0..6 {
        let messages: Vec<_> = (0..1000)
            .map(|index| message(&format!("{chunk}-{index}")))
            .collect();
        fixture.queue().enqueue_batch(&messages).await.unwrap();
    }
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let backend = fixture.another_backend(fixture.clock.clone()).await;
        tasks.spawn(async move {
            let purged = backend.purge(&name(), Purge::Live).await.unwrap();
            assert_eq!(queue_of(&backend).stats().await.unwrap().ready, 0);
            purged
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<u64>(), 6000);
}

async fn a_nack_is_not_lost_because_its_message_is_acked_later() {
    let fixture = Fixture::new().await;
    let slow = fixture.queue();
    let quick = queue_of(&fixture.another_backend(fixture.clock.clone()).await);
    let batch = [message("a"), message("b")];
    // The two share a document, or not.
    for is_shared in [true, false] {
        for each in batch.chunks(if is_shared { 2 } else { 1 }) {
            slow.enqueue_batch(each).await.unwrap();
        }
        let leased = lease(&slow, 2).await;
        let receipts: Vec<_> = leased.into_iter().map(|it| it.receipt).collect();
        applied(slow.ack(&receipts[1])).await;
        let nacks: Vec<_> = receipts
            .iter()
            .map(|receipt| LeaseChange::nack(receipt.clone(), Duration::ZERO))
            .collect();
        let take_over = async {
            let delivery = loop {
                if let Some(delivery) = quick.lease().await.unwrap() {
                    break delivery;
                }
            };
            assert_eq!(delivery.attempt, 2, "the nack took effect");
            applied(quick.ack(&delivery.receipt)).await;
        };
        let (outcomes, ()) = tokio::join!(slow.change_batch(&nacks), take_over);
        let expected = [LeaseOutcome::Applied, LeaseOutcome::Lost];
        assert_eq!(outcomes.unwrap(), expected);
    }
}
