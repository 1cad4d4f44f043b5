//! C2: the contract among many tasks, on two connections to the same store.
//!
//! The manual clock stands still, so nothing expires and every message has one owner at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex},
};

use queue_api::{
    Delivery, EnqueueOutcome, LeaseAction, LeaseChange, LeaseOutcome, MessageId, NewMessage,
};
use tokio::sync::Barrier;

use crate::{
    fixture::{Fixture, dead_letter, extend, id_of, msg, nack},
    isolation::all_of,
};

/// Runs `task` so many times at once, every second one on a connection of its own kind. All
/// begin together, or the first would be done before there is anybody to meet.
async fn many<T, F>(fixture: &Fixture, tasks: usize, task: impl Fn(Fixture, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let elsewhere = fixture.reconnect().await;
    let all_here = Arc::new(Barrier::new(tasks));
    let together = (0..tasks).map(|n| {
        let connection = if n % 2 == 0 { fixture } else { &elsewhere };
        let (all_here, task) = (all_here.clone(), task(connection.clone(), n));
        async move {
            all_here.wait().await;
            task.await
        }
    });
    all_of(together).await
}

/// Whether anything is left that somebody could still be given.
async fn drained(fixture: &Fixture) -> bool {
    let stats = fixture.stats().await;
    stats.ready + stats.leased + stats.delayed == 0
}

pub(super) async fn each_message_is_acked_once_among_many_tasks(fixture: Fixture) {
    const MESSAGES: usize = 200;
    let messages: Vec<_> = (0..MESSAGES).map(|n| msg(&format!("m{n:03}"))).collect();
    fixture.store(&messages).await;
    let acked = many(&fixture, 8, async |fixture: Fixture, task| {
        let mut acked = Vec::new();
        let mut patience = fixture.patience();
        loop {
            let deliveries = fixture.lease(task % 5 + 1).await;
            if deliveries.is_empty() {
                if drained(&fixture).await {
                    return acked;
                }
                patience
                    .wear("nothing to lease, though not all is acked")
                    .await;
                continue;
            }
            patience.restored();
            let receipts: Vec<_> = deliveries.iter().map(|d| d.receipt.clone()).collect();
            let outcomes = fixture.ack_all(&receipts).await;
            for (delivery, outcome) in deliveries.into_iter().zip(outcomes) {
                assert_eq!(
                    outcome,
                    LeaseOutcome::Applied,
                    "{} has one owner",
                    delivery.id
                );
                assert_eq!(delivery.attempt, 1);
                acked.push(delivery.id);
            }
        }
    })
    .await;
    let mut acked: Vec<MessageId> = acked.into_iter().flatten().collect();
    acked.sort();
    let stored: Vec<_> = messages.into_iter().map(|message| message.id).collect();
    assert_eq!(acked, stored, "each message is acked exactly once");
}

pub(super) async fn no_two_leases_of_a_message_are_live(fixture: Fixture) {
    let messages: Vec<_> = (0..10)
        .map(|n| msg(&format!("m{n}")).with_max_attempts(9999))
        .collect();
    fixture.store(&messages).await;
    let live = Arc::new(Mutex::new(BTreeSet::new()));
    let last_attempt = Arc::new(Mutex::new(BTreeMap::<MessageId, u32>::new()));
    many(&fixture, 8, move |fixture: Fixture, task| {
        let (live, last_attempt) = (live.clone(), last_attempt.clone());
        async move {
            for round in 0..15 {
                let deliveries = fixture.lease(round % 3 + 1).await;
                for delivery in &deliveries {
                    let id = &delivery.id;
                    let alone = live.lock().unwrap().insert(id.clone());
                    assert!(alone, "{id} was given to two at once");
                    // Not in one statement: a panic that holds the lock hides behind those of
                    // the others, who find it poisoned.
                    let last = last_attempt
                        .lock()
                        .unwrap()
                        .insert(id.clone(), delivery.attempt);
                    let next = last.unwrap_or(0) + 1;
                    assert_eq!(delivery.attempt, next, "attempts of {id} have no gap");
                }
                tokio::task::yield_now().await;
                for delivery in deliveries {
                    // Given up here first: once the nack is through, another may have it.
                    live.lock().unwrap().remove(&delivery.id);
                    let outcome = fixture.change(&delivery.receipt, nack(0)).await;
                    assert_eq!(outcome, LeaseOutcome::Applied, "task {task} had the lease");
                }
            }
        }
    })
    .await;
    assert_eq!(fixture.stats().await.ready, 10);
}

pub(super) async fn an_id_is_stored_once_among_many_senders(fixture: Fixture) {
    const IDS: usize = 30;
    let stored = many(&fixture, 8, async |fixture: Fixture, task| {
        let ids = (0..IDS).map(|n| format!("m{}", (n + task * 7) % IDS));
        let messages: Vec<_> = ids.map(|id| msg(&id)).collect();
        let outcomes = fixture.enqueue(&messages).await;
        outcomes
            .iter()
            .filter(|outcome| **outcome == EnqueueOutcome::Stored)
            .count()
    })
    .await;
    assert_eq!(
        stored.iter().sum::<usize>(),
        IDS,
        "each id is stored by exactly one sender"
    );
    assert_eq!(fixture.stats().await.ready, IDS as u64);
}

pub(super) async fn a_receipt_is_settled_once_among_many(fixture: Fixture) {
    for round in 0..12 {
        fixture.store(&[msg(&format!("m{round}"))]).await;
        let receipt = fixture.lease_one().await.receipt;
        let outcomes = many(&fixture, 4, move |fixture: Fixture, task| {
            let receipt = receipt.clone();
            async move {
                match task {
                    0 => fixture.ack(&receipt).await,
                    1 => fixture.change(&receipt, nack(0)).await,
                    2 => fixture.change(&receipt, LeaseAction::Release).await,
                    _ => fixture.change(&receipt, dead_letter("no")).await,
                }
            }
        })
        .await;
        let applied = outcomes
            .iter()
            .filter(|outcome| **outcome == LeaseOutcome::Applied);
        assert_eq!(applied.count(), 1, "one of {outcomes:?} settles it");
        for left in fixture.lease(10).await {
            fixture.ack(&left.receipt).await;
        }
    }
}

/// The lease has run out, so whoever comes first has the message: its old holder or the next.
pub(super) async fn a_late_ack_and_a_lease_do_not_both_win(fixture: Fixture) {
    for round in 0..12 {
        fixture.store(&[msg(&format!("m{round}"))]).await;
        let receipt = fixture.lease_one().await.receipt;
        fixture.pass(10_000).await;
        let won = many(&fixture, 4, move |fixture: Fixture, task| {
            let receipt = receipt.clone();
            async move {
                // Another one each time, because the last to come is the first to go on.
                if task == round % 4 {
                    fixture.ack(&receipt).await == LeaseOutcome::Applied
                } else {
                    !fixture.lease(1).await.is_empty()
                }
            }
        })
        .await;
        let winners = won.iter().filter(|won| **won).count();
        assert_eq!(winners, 1, "the ack and three leases won: {won:?}");
        fixture.pass(10_000).await;
        for left in fixture.lease(10).await {
            fixture.ack(&left.receipt).await;
        }
    }
}

/// The state that a claim saw when it looked may be another when it takes: the message is as
/// often delivered as before, and yet not ready any more.
pub(super) async fn a_late_change_and_a_lease_do_not_both_win(fixture: Fixture) {
    let actions = [extend(60_000), nack(60_000), dead_letter("no")];
    for round in 0..45 {
        let action = &actions[round % actions.len()];
        fixture.store(&[msg(&format!("m{round}"))]).await;
        let receipt = fixture.lease_one().await.receipt;
        fixture.pass(10_000).await;
        let first = round / actions.len() % 2;
        let won = many(&fixture, 2, |fixture: Fixture, task| {
            let (receipt, action) = (receipt.clone(), action.clone());
            async move {
                // Each goes first now and then.
                if task == first {
                    fixture.change(&receipt, action).await == LeaseOutcome::Applied
                } else {
                    !fixture.lease(1).await.is_empty()
                }
            }
        })
        .await;
        let winners = won.iter().filter(|won| **won).count();
        assert_eq!(winners, 1, "either the lease or {action:?}: {won:?}");
        fixture.pass(60_000).await;
        for left in fixture.lease(10).await {
            fixture.ack(&left.receipt).await;
        }
    }
}

/// A claim that looks first and takes later may meet another message when it takes: the one it
/// saw was acked meanwhile, and its id used again.
pub(super) async fn an_id_used_again_is_another_message(fixture: Fixture) {
    let most = fixture.backend().limits().max_batch.min(300);
    // Claims work in order of arrival or of id, so those who take a few and those who take all
    // begin at different ends.
    let messages: Vec<_> = (0..most)
        .rev()
        .map(|n| life(&format!("m{n:03}"), 0))
        .collect();
    fixture.store(&messages).await;
    let ended = Arc::new(Mutex::new(BTreeSet::new()));
    many(&fixture, 4, move |fixture: Fixture, task| {
        let ended = ended.clone();
        async move {
            for round in 1..=15 {
                let takes_all = task < 2;
                let deliveries = fixture.lease(if takes_all { most } else { 3 }).await;
                for Delivery { id, payload, .. } in &deliveries {
                    let is_over = ended
                        .lock()
                        .unwrap()
                        .contains(&(id.clone(), payload.clone()));
                    assert!(
                        !is_over,
                        "{id} was delivered as it was before its ack: {payload:?}"
                    );
                }
                let receipts = deliveries.iter().map(|d| d.receipt.clone());
                if takes_all {
                    let returns: Vec<_> = receipts.map(LeaseChange::release).collect();
                    fixture.change_all(&returns).await;
                    continue;
                }
                let outcomes = fixture.ack_all(&receipts.collect::<Vec<_>>()).await;
                assert!(
                    outcomes
                        .iter()
                        .all(|outcome| *outcome == LeaseOutcome::Applied),
                    "task {task} has the leases that it acks: {outcomes:?}"
                );
                for Delivery { id, payload, .. } in deliveries {
                    let next = life(id.as_str(), 100 * task + round);
                    ended.lock().unwrap().insert((id.clone(), payload));
                    assert_eq!(
                        fixture.enqueue(&[next]).await,
                        [EnqueueOutcome::Stored],
                        "{id} is free again: its ack was `Applied`"
                    );
                }
            }
        }
    })
    .await;

    fn life(id: &str, number: usize) -> NewMessage {
        NewMessage::new(format!("life {number} of {id}")).with_id(id_of(id))
    }
}

pub(super) async fn many_consumers_make_progress(fixture: Fixture) {
    const MESSAGES: usize = 64;
    let messages: Vec<_> = (0..MESSAGES).map(|n| msg(&format!("m{n}"))).collect();
    fixture.store(&messages).await;
    let leased = many(&fixture, 12, async |fixture: Fixture, _| {
        let mut leased = Vec::new();
        let mut patience = fixture.patience();
        while fixture.stats().await.ready > 0 {
            match fixture.lease(1).await.pop() {
                Some(delivery) => {
                    leased.push(delivery.id);
                    patience.restored();
                }
                None => {
                    patience
                        .wear("nothing to lease, though something is ready")
                        .await
                }
            }
        }
        leased
    })
    .await;
    let leased: Vec<_> = leased.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = leased.iter().collect();
    assert_eq!(
        (leased.len(), distinct.len()),
        (MESSAGES, MESSAGES),
        "leases, and messages among them"
    );
}

pub(super) async fn producers_and_consumers_balance(fixture: Fixture) {
    const EACH: usize = 25;
    let acked = many(&fixture, 8, async |fixture: Fixture, task| {
        let mut acked = Vec::new();
        if task < 4 {
            for n in 0..EACH {
                fixture.store(&[msg(&format!("p{task}-{n}"))]).await;
            }
            return acked;
        }
        // Until every producer's messages are accounted for; the clock stands still, so a
        // message that is nacked comes back at once and one that is lost never.
        let mut patience = fixture.patience();
        while !all_done(&fixture).await {
            patience
                .wear("nothing to lease, though not all is done")
                .await;
            for delivery in fixture.lease(4).await {
                patience.restored();
                if delivery.attempt == 1 && delivery.id.as_str().ends_with('3') {
                    fixture.change(&delivery.receipt, nack(0)).await;
                } else if fixture.ack(&delivery.receipt).await == LeaseOutcome::Applied {
                    acked.push(delivery.id);
                    let done = fixture.other_queue("done");
                    done.store(&[msg(acked.last().unwrap().as_str())]).await;
                }
            }
        }
        acked
    })
    .await;
    let acked: Vec<_> = acked.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = acked.iter().collect();
    assert_eq!(
        (acked.len(), distinct.len()),
        (4 * EACH, 4 * EACH),
        "acks, and messages among them"
    );
    assert!(
        drained(&fixture).await,
        "all was acked, and something is left"
    );

    async fn all_done(fixture: &Fixture) -> bool {
        fixture.other_queue("done").stats().await.ready == 4 * EACH as u64
    }
}
