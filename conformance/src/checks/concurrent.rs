//! C2: the contract with many tasks on two connections to the same store.
//!
//! The races of two calls are met by construction, see [`race`](super::race). These checks are about
//! contention: many calls at once make progress, and together they account for every message.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex},
};

use queue_api::{Delivery, EnqueueOutcome::Stored, LeaseChange, LeaseOutcome::Applied, MessageId};
use tokio::sync::Barrier;

use super::race::{
    a_lease_takes_no_reused_id, an_ack_and_an_enqueue_both_take_effect,
    two_enqueues_store_an_id_once, two_leases_share_no_message,
};
use crate::{
    fixture::{Fixture, msg, nack},
    isolation::run_all,
};

/// Runs `task` this many times concurrently, every second time on another connection. A barrier
/// makes all of them start together.
pub(super) async fn many<T, F>(
    fixture: &Fixture,
    tasks: usize,
    task: impl Fn(Fixture, usize) -> F,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let elsewhere = fixture.reconnect().await;
    let barrier = Arc::new(Barrier::new(tasks));
    let together = (0..tasks).map(|n| {
        let connection = if n % 2 == 0 { fixture } else { &elsewhere };
        let (barrier, task) = (barrier.clone(), task(connection.clone(), n));
        async move {
            barrier.wait().await;
            task.await
        }
    });
    run_all(together).await
}

pub(super) async fn is_drained(fixture: &Fixture) -> bool {
    let stats = fixture.stats().await;
    stats.ready + stats.leased + stats.delayed == 0
}

pub(super) async fn many_tasks_ack_each_message_once(fixture: Fixture) {
    const MESSAGES: usize = 400;
    const BATCHES: [usize; 8] = [1, 2, 3, 5, 10, 20, 50, 100];
    let messages: Vec<_> = (0..MESSAGES).map(|n| msg(&format!("m{n:03}"))).collect();
    fixture.store(&messages).await;
    let acked = many(&fixture, BATCHES.len(), async |fixture: Fixture, task| {
        let mut acked = Vec::new();
        let mut idle = fixture.idle_timeout();
        loop {
            let deliveries = fixture.lease(BATCHES[task]).await;
            if deliveries.is_empty() {
                if is_drained(&fixture).await {
                    return acked;
                }
                idle.check("no message was leased, but not all are acked")
                    .await;
                continue;
            }
            idle.reset();
            let receipts: Vec<_> = deliveries.iter().map(|d| d.receipt.clone()).collect();
            let outcomes = fixture.ack_all(&receipts).await;
            for (delivery, outcome) in deliveries.into_iter().zip(outcomes) {
                let id = delivery.id;
                assert_eq!(outcome, Applied, "{id} has one lease");
                assert_eq!(delivery.payload, id.as_str());
                assert_eq!(delivery.attempt, 1);
                acked.push(id);
            }
        }
    })
    .await;
    let mut acked: Vec<MessageId> = acked.into_iter().flatten().collect();
    acked.sort();
    let stored: Vec<_> = messages.into_iter().map(|message| message.id).collect();
    assert_eq!(acked, stored, "each message is acked exactly once");
}

pub(super) async fn a_message_has_one_lease_at_a_time(fixture: Fixture) {
    two_leases_share_no_message(&fixture).await;
    many_tasks_take_turns(&fixture).await;
}

async fn many_tasks_take_turns(fixture: &Fixture) {
    let messages: Vec<_> = (0..10)
        .map(|n| msg(&format!("m{n}")).with_max_attempts(9999))
        .collect();
    fixture.store(&messages).await;
    let leased_now = Arc::new(Mutex::new(BTreeSet::new()));
    let last_attempt = Arc::new(Mutex::new(BTreeMap::<MessageId, u32>::new()));
    many(fixture, 8, move |fixture: Fixture, _| {
        let (leased_now, last_attempt) = (leased_now.clone(), last_attempt.clone());
        async move {
            for round in 0..15 {
                let deliveries = fixture.lease(round % 3 + 1).await;
                for Delivery { id, attempt, .. } in &deliveries {
                    let is_alone = leased_now.lock().unwrap().insert(id.clone());
                    assert!(is_alone, "{id} has two leases");
                    // Not in one statement: a panic with the lock would poison it for the others.
                    let last = last_attempt.lock().unwrap().insert(id.clone(), *attempt);
                    assert_eq!(*attempt, last.unwrap_or(0) + 1, "attempts of {id}");
                }
                tokio::task::yield_now().await;
                for delivery in deliveries {
                    // Before the nack: after it, another task may lease the message.
                    leased_now.lock().unwrap().remove(&delivery.id);
                    assert_eq!(fixture.change(&delivery.receipt, nack(0)).await, Applied);
                }
            }
        }
    })
    .await;
    assert_eq!(fixture.stats().await.ready, 10);
}

pub(super) async fn concurrent_enqueues_store_an_id_once(fixture: Fixture) {
    two_enqueues_store_an_id_once(&fixture).await;
    const IDS: usize = 30;
    let stored = many(&fixture, 8, async |fixture: Fixture, task| {
        let ids = (0..IDS).map(|n| format!("m{}", (n + task * 7) % IDS));
        let messages: Vec<_> = ids.map(|id| msg(&id)).collect();
        let outcomes = fixture.enqueue(&messages).await;
        outcomes.iter().filter(|o| **o == Stored).count()
    })
    .await;
    let stored: usize = stored.iter().sum();
    assert_eq!(stored, IDS, "each id is stored by exactly one call");
    assert_eq!(fixture.stats().await.ready, IDS as u64);
}

pub(super) async fn a_reused_id_is_a_new_message(fixture: Fixture) {
    a_lease_takes_no_reused_id(&fixture).await;
    many_tasks_reuse_ids(&fixture).await;
}

/// Two tasks lease all messages and release them. Two others lease three, ack them and use their
/// ids again. Ids are in the opposite order of arrival, so a claim by id and a claim by arrival
/// start at opposite ends.
async fn many_tasks_reuse_ids(fixture: &Fixture) {
    let most = fixture.backend().limits().max_batch.get().min(300);
    let ids = (0..most).rev().map(|n| format!("many{n:03}"));
    let messages: Vec<_> = ids.map(|id| msg(&id)).collect();
    fixture.store(&messages).await;
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    many(fixture, 4, move |fixture: Fixture, task| {
        let acked = acked.clone();
        async move {
            for round in 0..5 {
                let deliveries = fixture.lease(if task < 2 { most } else { 3 }).await;
                for Delivery { id, payload, .. } in &deliveries {
                    let is_acked = acked.lock().unwrap().contains(payload);
                    assert!(!is_acked, "{id} was delivered after its ack: {payload:?}");
                }
                let receipts: Vec<_> = deliveries.iter().map(|d| d.receipt.clone()).collect();
                if task < 2 {
                    let released: Vec<_> = receipts.into_iter().map(LeaseChange::release).collect();
                    fixture.change_all(&released).await;
                    continue;
                }
                let outcomes = fixture.ack_all(&receipts).await;
                let all_applied = outcomes.iter().all(|outcome| *outcome == Applied);
                assert!(all_applied, "task {task} has these leases: {outcomes:?}");
                for Delivery { id, payload, .. } in deliveries {
                    acked.lock().unwrap().insert(payload);
                    let again = msg(id.as_str())
                        .with_payload(format!("{id} of task {task}, round {round}"));
                    fixture.store(&[again]).await;
                }
            }
        }
    })
    .await;
}

pub(super) async fn many_consumers_make_progress(fixture: Fixture) {
    const MESSAGES: usize = 64;
    let messages: Vec<_> = (0..MESSAGES).map(|n| msg(&format!("m{n}"))).collect();
    fixture.store(&messages).await;
    let leased = many(&fixture, 12, async |fixture: Fixture, _| {
        let mut leased = Vec::new();
        let mut idle = fixture.idle_timeout();
        while fixture.stats().await.ready > 0 {
            match fixture.lease(1).await.pop() {
                Some(delivery) => {
                    leased.push(delivery.id);
                    idle.reset();
                }
                None => idle.check("messages are ready, but none was leased").await,
            }
        }
        leased
    })
    .await;
    let leased: Vec<_> = leased.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = leased.iter().collect();
    let counts = (leased.len(), distinct.len());
    assert_eq!(counts, (MESSAGES, MESSAGES), "leases, distinct messages");
}

pub(super) async fn producers_and_consumers_lose_nothing(fixture: Fixture) {
    an_ack_and_an_enqueue_both_take_effect(&fixture).await;
    many_producers_and_consumers(&fixture).await;
}

async fn many_producers_and_consumers(fixture: &Fixture) {
    const EACH: usize = 25;
    let acked = many(fixture, 8, async |fixture: Fixture, task| {
        let mut acked = Vec::new();
        if task < 4 {
            for n in 0..EACH {
                fixture.store(&[msg(&format!("p{task}-{n}"))]).await;
            }
            return acked;
        }
        // The clock stands still: a nacked message is ready at once, a lost one never comes.
        let mut idle = fixture.idle_timeout();
        while fixture.other_queue("done").stats().await.ready < 4 * EACH as u64 {
            idle.check("no message was leased, but not all are done")
                .await;
            for delivery in fixture.lease(4).await {
                idle.reset();
                if delivery.attempt == 1 && delivery.id.as_str().ends_with('3') {
                    assert!(
                        fixture
                            .change(&delivery.receipt, nack(0))
                            .await
                            .is_applied()
                    );
                } else if fixture.ack(&delivery.receipt).await == Applied {
                    let done = msg(delivery.id.as_str());
                    fixture.other_queue("done").store(&[done]).await;
                    acked.push(delivery.id);
                }
            }
        }
        acked
    })
    .await;
    let acked: Vec<_> = acked.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = acked.iter().collect();
    let counts = (acked.len(), distinct.len());
    assert_eq!(counts, (4 * EACH, 4 * EACH), "acks, distinct messages");
    assert!(is_drained(fixture).await, "all messages are acked");
}
