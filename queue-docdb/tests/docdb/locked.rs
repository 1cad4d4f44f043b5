//! Messages that an open transaction holds: a worker acked them in it and then crashed.

use std::time::Duration;

use futures::future::join_all;
use mongodb::{ClientSession, bson::doc};
use mongodb_test_server::documentdb::Engines;
use queue_api::{LeaseChange, LeaseOptions, LeaseOutcome, Queue, QueueTransaction, Receipt};
use tokio::time::Instant;

use crate::fixture::{
    Fixture, MINUTE, SECOND, TRANSACTIONAL, applied, lease, message, name, queue_of,
};

tests! {
    on_one_thread:
        an_abandoned_transaction_does_not_stop_the_queue,
        a_held_message_is_ready_after_an_abort_and_gone_after_a_commit,
        a_held_message_does_not_stop_other_settlements_of_the_call
}

const FREE: [&str; 5] = ["0", "b1", "n", "x", "z"];

/// How long the free messages may take to come.
const LONGEST: Duration = Duration::from_secs(300);

/// A transaction that has acked these and stays open. The server would end it after a minute, in which a busy
/// machine may not do what the test waits for.
async fn hold(fixture: &Fixture, receipts: &[Receipt]) -> ClientSession {
    let lifetime = doc! { "setParameter": 1, "transactionLifetimeLimitSeconds": 600 };
    let admin = fixture.documents().client().database("admin");
    admin.run_command(lifetime).await.unwrap();
    let mut session = fixture.backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    let acked = queues.ack(&name(), receipts).await.unwrap();
    assert!(
        acked
            .iter()
            .all(|outcome| *outcome == LeaseOutcome::Applied)
    );
    session
}

/// Acks `held`, enqueued so many together, in a transaction that stays open. Their leases run out, and then the free messages
/// are ready, with as many attempts.
async fn abandoned(fixture: &Fixture, held: &[String], together: usize) -> ClientSession {
    let queue = fixture.queue();
    let batch: Vec<_> = held.iter().map(|id| message(id)).collect();
    for together in batch.chunks(together) {
        queue.enqueue_batch(together).await.unwrap();
    }
    let receipts: Vec<Receipt> = lease(&queue, held.len())
        .await
        .into_iter()
        .map(|delivery| delivery.receipt)
        .collect();
    let session = hold(fixture, &receipts).await;
    queue.enqueue_batch(&FREE.map(message)).await.unwrap();
    for delivery in lease(&queue, FREE.len()).await {
        let delayed = queue.nack(&delivery.receipt, 2 * MINUTE).await.unwrap();
        assert!(delayed.is_applied());
    }
    fixture.clock.advance(2 * MINUTE);
    session
}

/// The ids that lease calls return, sorted. Ends when all free ones have come and a call returns none.
async fn drained(fixture: &Fixture, queue: &Queue, at_once: usize) -> Vec<String> {
    let began = Instant::now();
    let mut all = Vec::new();
    loop {
        let options = LeaseOptions::new(at_once);
        let deliveries = match queue.lease_batch(&options).await {
            Ok(deliveries) => deliveries,
            // The call cannot know what its last claim took.
            Err(error) => {
                let is_early = began.elapsed() < LONGEST;
                assert!(error.is_retryable() && is_early, "{error:?}");
                continue;
            }
        };
        if deliveries.is_empty() {
            // On a busy machine, the claim of a free message may look locked. Then claims skip it for five
            // seconds, or it is leased without a caller that knows.
            if all.len() < FREE.len() && began.elapsed() < LONGEST {
                queue.wait(6 * SECOND).await.unwrap();
                fixture.clock.advance(MINUTE);
                continue;
            }
            all.sort();
            return all;
        }
        for delivery in deliveries {
            all.push(delivery.id.to_string());
            applied(queue.ack(&delivery.receipt)).await;
        }
    }
}

async fn an_abandoned_transaction_does_not_stop_the_queue() {
    let case = async |held: usize, together: usize, at_once: usize, timeout: Duration| {
        let held: Vec<String> = (0..held).map(|n| format!("held{n}")).collect();
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let mut session = abandoned(&fixture, &held, together).await;
        let backend = fixture.watched(|_| ()).operation_timeout(timeout).connect();
        let queue = queue_of(&backend.await.unwrap());
        let leased = drained(&fixture, &queue, at_once).await;
        assert_eq!(
            leased, FREE,
            "with {held:?} held, {at_once} at a time, {timeout:?}"
        );
        session.abort_transaction().await.unwrap();
    };
    // Side by side, because each waits for the server.
    let usual = [1, 5, 20]
        .into_iter()
        .flat_map(|held| [1, 10].map(|at_once| case(held, held, at_once, 10 * SECOND)));
    // Less than three times what a claim may take.
    let short = [1, 10].map(|at_once| case(1, 1, at_once, 3 * SECOND));
    let in_entries_of_one = [(12, 1), (6, 10)];
    let in_entries_of_one =
        in_entries_of_one.map(|(held, at_once)| case(held, 1, at_once, 10 * SECOND));
    join_all(usual.chain(short).chain(in_entries_of_one)).await;
}

async fn a_held_message_is_ready_after_an_abort_and_gone_after_a_commit() {
    for commits in [true, false] {
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let mut session = abandoned(&fixture, &["m".to_owned()], 1).await;
        assert_eq!(drained(&fixture, &fixture.queue(), 10).await, FREE);
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

/// The call is an error, because one outcome is open.
async fn a_held_message_does_not_stop_other_settlements_of_the_call() {
    const MESSAGES: usize = 12;
    let case = async |acks: bool| {
        let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
        let queue = fixture.queue();
        for number in 0..MESSAGES {
            let message = message(&format!("m{number}"));
            queue.enqueue(&message).await.unwrap();
        }
        let leased = lease(&queue, MESSAGES).await.into_iter();
        let receipts: Vec<Receipt> = leased.map(|delivery| delivery.receipt).collect();
        // Its entry is the oldest one, so commands come to it first.
        let mut session = hold(&fixture, &receipts[..1]).await;
        let releases = receipts.iter().cloned().map(LeaseChange::release);
        let releases: Vec<LeaseChange> = releases.collect();
        let settled = match acks {
            true => queue.ack_batch(&receipts).await,
            false => queue.change_batch(&releases).await,
        };
        let error = settled.expect_err("one is held");
        assert!(error.is_retryable(), "{error:?}");
        let stats = queue.stats().await.unwrap();
        let ready = if acks { 0 } else { MESSAGES as u64 - 1 };
        assert_eq!((stats.ready, stats.leased), (ready, 1), "acks: {acks}");
        session.abort_transaction().await.unwrap();
    };
    join_all([true, false].map(case)).await;
}
