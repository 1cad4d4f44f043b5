//! Messages that an open transaction holds: a worker acked them in it and then crashed.

use mongodb::ClientSession;
use mongodb_test_server::documentdb::Engines;
use queue_api::{LeaseOptions, LeaseOutcome, Receipt};

use crate::fixture::{Fixture, MINUTE, SECOND, TRANSACTIONAL, lease, message, name};

const FREE: [&str; 5] = ["0", "b1", "n", "x", "z"];

/// Acks `held` in a transaction that stays open. Then their leases run out, and the free messages
/// come in.
async fn abandoned(fixture: &Fixture, held: &[&str]) -> ClientSession {
    let queue = fixture.queue();
    let batch: Vec<_> = held.iter().copied().map(message).collect();
    queue.enqueue_batch(&batch).await.unwrap();
    let receipts: Vec<Receipt> = lease(&queue, held.len())
        .await
        .into_iter()
        .map(|delivery| delivery.receipt)
        .collect();
    let mut session = fixture.backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    let acked = queues.ack(&name(), &receipts).await.unwrap();
    assert!(
        acked
            .iter()
            .all(|outcome| *outcome == LeaseOutcome::Applied)
    );
    queue.enqueue_batch(&FREE.map(message)).await.unwrap();
    fixture.clock.advance(MINUTE);
    session
}

/// The ids that lease calls return until one returns none, in order.
async fn drained(fixture: &Fixture, at_once: usize) -> Vec<String> {
    let queue = fixture.queue();
    let (mut all, mut errors) = (Vec::new(), 0);
    loop {
        let options = LeaseOptions::new(at_once);
        let deliveries = match queue.lease_batch(&options).await {
            Ok(deliveries) => deliveries,
            // The call cannot know what its last claim took.
            Err(error) => {
                errors += 1;
                assert!(error.is_retryable() && errors < 3, "{error:?}");
                continue;
            }
        };
        if deliveries.is_empty() {
            all.sort();
            return all;
        }
        for delivery in deliveries {
            all.push(delivery.id.to_string());
            assert!(queue.ack(&delivery.receipt).await.unwrap().is_applied());
        }
    }
}

#[tokio::test]
async fn an_abandoned_transaction_does_not_stop_the_queue() {
    let held: [&[&str]; 3] = [&["m"], &["a", "m"], &["a", "c", "m", "y", "zz"]];
    for (held, at_once) in [(held[0], 1), (held[0], 10), (held[1], 10), (held[2], 10)] {
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let mut session = abandoned(&fixture, held).await;
        let leased = drained(&fixture, at_once).await;
        assert_eq!(leased, FREE, "with {held:?} held, {at_once} at a time");
        session.abort_transaction().await.unwrap();
    }
}

#[tokio::test]
async fn a_held_message_is_ready_after_an_abort_and_gone_after_a_commit() {
    for commits in [true, false] {
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let mut session = abandoned(&fixture, &["m"]).await;
        assert_eq!(drained(&fixture, 10).await, FREE);
        match commits {
            true => session.commit_transaction().await.unwrap(),
            false => session.abort_transaction().await.unwrap(),
        }
        let queue = fixture.queue();
        // A claim that timed out may have leased it.
        fixture.clock.advance(10 * MINUTE);
        let stats = queue.stats().await.unwrap();
        assert_eq!(stats.ready, u64::from(!commits));
        if !commits {
            queue.wait(SECOND).await.unwrap();
            let another = fixture.another_backend(fixture.clock.clone()).await;
            let another = crate::fixture::queue_of(&another);
            let delivery = another.lease().await.unwrap().expect("it is ready");
            assert_eq!(delivery.id.as_str(), "m");
        }
    }
}
