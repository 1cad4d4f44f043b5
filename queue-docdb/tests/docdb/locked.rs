//! Messages that somebody's open transaction holds: a worker acked them in it, and died.

use mongodb::ClientSession;
use mongodb_test_server::documentdb::{Engine, Engines};
use queue_api::{LeaseOptions, LeaseOutcome, Receipt};

use crate::fixture::{Fixture, MINUTE, SECOND, lease, message, name};

const TRANSACTIONAL: &[Engine] = &[Engine::V4_0, Engine::V5_0, Engine::V8_0];

const SOUND: [&str; 5] = ["0", "b1", "n", "x", "z"];

/// Acks `held` in a transaction that stays open, while their leases run out, and sound ones come
/// in after them.
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
    queue.enqueue_batch(&SOUND.map(message)).await.unwrap();
    fixture.clock.advance(MINUTE);
    session
}

/// What lease calls give until one gives nothing, in order of id.
async fn drained(fixture: &Fixture, at_once: usize) -> Vec<String> {
    let queue = fixture.queue();
    let (mut all, mut errors) = (Vec::new(), 0);
    loop {
        let options = LeaseOptions::new(at_once);
        let deliveries = match queue.lease_batch(&options).await {
            Ok(deliveries) => deliveries,
            // It may take what is held as soon as that is free.
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
            queue.ack(&delivery.receipt).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_abandoned_transaction_stops_nobody_else() {
    let held: [&[&str]; 3] = [&["m"], &["a", "m"], &["a", "c", "m", "y", "zz"]];
    for (held, at_once) in [(held[0], 1), (held[0], 10), (held[1], 10), (held[2], 10)] {
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let mut session = abandoned(&fixture, held).await;
        let got = drained(&fixture, at_once).await;
        assert_eq!(got, SOUND, "with {held:?} held, {at_once} at a time");
        session.abort_transaction().await.unwrap();
    }
}

/// One that has just been acked in a transaction which goes on and commits.
#[tokio::test]
async fn what_was_held_comes_back_or_is_gone() {
    for commits in [true, false] {
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let mut session = abandoned(&fixture, &["m"]).await;
        assert_eq!(drained(&fixture, 10).await, SOUND);
        match commits {
            true => session.commit_transaction().await.unwrap(),
            false => session.abort_transaction().await.unwrap(),
        }
        let queue = fixture.queue();
        // Also where a claim took it that had been given up.
        fixture.clock.advance(10 * MINUTE);
        let stats = queue.stats().await.unwrap();
        assert_eq!(stats.ready, u64::from(!commits));
        if !commits {
            queue.wait(SECOND).await.unwrap();
            let another = fixture.another_backend(fixture.clock.clone()).await;
            let another = crate::fixture::queue_of(&another);
            let back = another.lease().await.unwrap().expect("it is ready");
            assert_eq!(back.id.as_str(), "m");
        }
    }
}
