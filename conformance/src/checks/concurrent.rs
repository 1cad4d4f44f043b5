//! C2: the contract with many tasks on two connections to the same store.
//!
//! Two calls race by construction, not by luck: [`interleave`] stops one of them at each of its await
//! points while the other runs. The checks with many tasks come on top.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{
    Delivery,
    EnqueueOutcome::Stored,
    LeaseAction,
    LeaseOutcome::{Applied, Lost},
    MessageId, NewMessage, Receipt,
};
use tokio::{sync::Barrier, time::timeout};

use super::cancel::MOST_POLLS;
use crate::{
    fixture::{Fixture, dead_letter, extend, id_of, msg, nack},
    isolation::run_all,
    poll_at_most::poll_at_most,
};

/// How long a call is stopped for another. If it holds a lock, the other needs it to go on.
const STOPPED: Duration = Duration::from_secs(1);

/// The outputs of two calls.
struct Interleaved<A, B> {
    first: A,
    second: B,
    was_stopped: bool,
}

/// Stops `first` after this many polls, runs `second`, then finishes `first`.
async fn interleave<A, B>(
    polls: usize,
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Interleaved<A, B> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let stopped = poll_at_most(polls, first.as_mut()).await;
    let was_stopped = stopped.is_none();
    let (first, second) = match stopped {
        Some(output) => (output, second.await),
        None => match timeout(STOPPED, second.as_mut()).await {
            Ok(output) => (first.await, output),
            Err(_) => tokio::join!(first, second),
        },
    };
    Interleaved {
        first,
        second,
        was_stopped,
    }
}

/// Waits for round trips, so that a store has surely handled the last request of a stopped call.
async fn round_trips(fixture: &Fixture) {
    for _ in 0..2 {
        fixture.stats().await;
    }
}

/// Runs `task` this many times concurrently, every second time on another connection. A barrier
/// makes all of them start together.
async fn many<T, F>(fixture: &Fixture, tasks: usize, task: impl Fn(Fixture, usize) -> F) -> Vec<T>
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

async fn ack_everything(fixture: &Fixture) {
    for delivery in fixture.lease(100).await {
        fixture.ack(&delivery.receipt).await;
    }
}

/// Stores a message and lets its lease expire. The receipt is late, but current.
async fn expired_lease(fixture: &Fixture, message: NewMessage) -> Receipt {
    fixture.store(&[message]).await;
    let receipt = fixture.lease_one().await.receipt;
    fixture.pass(10_000).await;
    receipt
}

async fn is_drained(fixture: &Fixture) -> bool {
    let stats = fixture.stats().await;
    stats.ready + stats.leased + stats.delayed == 0
}

pub(super) async fn many_tasks_ack_each_message_once(fixture: Fixture) {
    const MESSAGES: usize = 200;
    let messages: Vec<_> = (0..MESSAGES).map(|n| msg(&format!("m{n:03}"))).collect();
    fixture.store(&messages).await;
    let acked = many(&fixture, 8, async |fixture: Fixture, task| {
        let mut acked = Vec::new();
        let mut idle = fixture.idle_timeout();
        loop {
            let deliveries = fixture.lease(task % 5 + 1).await;
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
    let elsewhere = fixture.reconnect().await;
    for polls in 1..=MOST_POLLS {
        let ids = ["a", "b", "c"].map(|id| msg(&format!("{id}{polls}")));
        fixture.store(&ids).await;
        let round = interleave(polls, fixture.lease(2), async {
            round_trips(&elsewhere).await;
            elsewhere.lease(2).await
        })
        .await;
        let leased: Vec<_> = round.first.iter().chain(&round.second).collect();
        let distinct: BTreeSet<_> = leased.iter().map(|delivery| &delivery.id).collect();
        assert_eq!(distinct.len(), leased.len(), "two leases: {leased:?}");
        assert!(!leased.is_empty(), "three are ready, one call gets some");
        for delivery in leased {
            assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
        }
        ack_everything(&fixture).await;
        if !round.was_stopped {
            break;
        }
    }
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
    let elsewhere = fixture.reconnect().await;
    for polls in 1..=MOST_POLLS {
        let messages = |ids: [&str; 3]| ids.map(|id| msg(&format!("{id}{polls}")));
        let (abc, cbd) = (messages(["a", "b", "c"]), messages(["c", "b", "d"]));
        let round = interleave(polls, fixture.enqueue(&abc), async {
            round_trips(&elsewhere).await;
            elsewhere.enqueue(&cbd).await
        })
        .await;
        let outcomes = [round.first, round.second].concat();
        let stored = outcomes.iter().filter(|o| **o == Stored).count();
        assert_eq!(stored, 4, "each of 4 ids is stored once: {outcomes:?}");
        assert_eq!(fixture.stats().await.ready, 4);
        ack_everything(&fixture).await;
        if !round.was_stopped {
            break;
        }
    }
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

pub(super) async fn concurrent_calls_settle_a_receipt_once(fixture: Fixture) {
    let elsewhere = fixture.reconnect().await;
    let settle =
        async |fixture: &Fixture, receipt: &Receipt, action: &Option<LeaseAction>| match action
            .clone()
        {
            None => fixture.ack(receipt).await,
            Some(action) => fixture.change(receipt, action).await,
        };
    let release = LeaseAction::Release;
    let actions = [None, Some(nack(0)), Some(release), Some(dead_letter("no"))];
    for (n, action) in actions.iter().enumerate() {
        let other = &actions[(n + 1) % actions.len()];
        for polls in 1..=MOST_POLLS {
            fixture.store(&[msg(&format!("m{n}-{polls}"))]).await;
            let receipt = fixture.lease_one().await.receipt;
            let round = interleave(polls, settle(&fixture, &receipt, action), async {
                round_trips(&elsewhere).await;
                settle(&elsewhere, &receipt, other).await
            })
            .await;
            let outcomes = [round.first, round.second];
            let applied = outcomes.iter().filter(|o| **o == Applied).count();
            assert_eq!(applied, 1, "{action:?} and {other:?}: {outcomes:?}");
            ack_everything(&fixture).await;
            if !round.was_stopped {
                break;
            }
        }
    }
}

/// The lease has expired, so either the late ack or the next lease gets the message.
pub(super) async fn a_late_ack_and_a_lease_do_not_both_succeed(fixture: Fixture) {
    one_of_two_succeeds(&fixture, None).await;
}

/// A claim reads the state of a message first and takes it later. In between, a late change may have
/// changed the state, but not the number of attempts.
pub(super) async fn a_late_change_and_a_lease_do_not_both_succeed(fixture: Fixture) {
    for action in [extend(60_000), nack(60_000), dead_letter("no")] {
        one_of_two_succeeds(&fixture, Some(action)).await;
    }
}

async fn one_of_two_succeeds(fixture: &Fixture, action: Option<LeaseAction>) {
    let elsewhere = fixture.reconnect().await;
    let settle = async |fixture: &Fixture, receipt: &Receipt| {
        let outcome = match action.clone() {
            None => fixture.ack(receipt).await,
            Some(action) => fixture.change(receipt, action).await,
        };
        outcome == Applied
    };
    let lease = async |fixture: &Fixture| !fixture.lease(1).await.is_empty();
    for lease_is_stopped in [true, false] {
        for polls in 1..=MOST_POLLS {
            let message = msg(&format!("m{polls}-{lease_is_stopped}"));
            let receipt = &expired_lease(fixture, message).await;
            let elsewhere = &elsewhere;
            let (settled, leased, was_stopped) = if lease_is_stopped {
                let round = interleave(polls, lease(fixture), async {
                    round_trips(elsewhere).await;
                    settle(elsewhere, receipt).await
                });
                let round = round.await;
                (round.second, round.first, round.was_stopped)
            } else {
                let round = interleave(polls, settle(fixture, receipt), async {
                    round_trips(elsewhere).await;
                    lease(elsewhere).await
                });
                let round = round.await;
                (round.first, round.second, round.was_stopped)
            };
            assert!(
                settled != leased,
                "either the lease or {action:?} (None is an ack): {leased}, {settled}"
            );
            fixture.pass(60_000).await;
            ack_everything(fixture).await;
            if !was_stopped {
                break;
            }
        }
    }
}

/// A claim reads a message first and takes it later. In between, the message may be acked and its id
/// used again.
pub(super) async fn a_reused_id_is_a_new_message(fixture: Fixture) {
    let elsewhere = fixture.reconnect().await;
    let first_life = |id: &str| msg(id).with_header("life", "1");
    let second_life = msg("a").with_header("life", "2");
    for polls in 1..=MOST_POLLS {
        fixture.store(&["a", "b", "c"].map(first_life)).await;
        let deliveries = fixture.lease(3).await.into_iter();
        let receipts: BTreeMap<_, _> = deliveries.map(|d| (d.id, d.receipt)).collect();
        fixture.pass(10_000).await;
        let round = interleave(polls, fixture.lease(3), async {
            round_trips(&elsewhere).await;
            let [a, b] = ["a", "b"].map(|id| receipts[&id_of(id)].clone());
            let acked = elsewhere.ack_all(&[b, a]).await;
            if acked[1] == Applied {
                elsewhere.store(std::slice::from_ref(&second_life)).await;
            }
            acked
        })
        .await;
        let rest = fixture.lease(3).await;
        let leased: Vec<_> = round.first.into_iter().chain(rest).collect();
        let mut seen: Vec<_> = leased
            .iter()
            .map(|d| (d.id.as_str(), &*d.headers["life"], d.attempt))
            .collect();
        seen.sort_unstable();
        let expected = [
            match round.second[1] {
                Applied => Some(("a", "2", 1)),
                Lost => Some(("a", "1", 2)),
            },
            (round.second[0] == Lost).then_some(("b", "1", 2)),
            Some(("c", "1", 2)),
        ];
        let expected: Vec<_> = expected.into_iter().flatten().collect();
        assert_eq!(seen, expected, "acks of b and a: {:?}", round.second);
        for delivery in &leased {
            assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
        }
        if !round.was_stopped {
            break;
        }
    }
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
    let elsewhere = fixture.reconnect().await;
    for polls in 1..=MOST_POLLS {
        let (acked, stored) = (msg(&format!("a{polls}")), msg(&format!("b{polls}")));
        fixture.store(&[acked]).await;
        let receipt = fixture.lease_one().await.receipt;
        let round = interleave(polls, fixture.ack(&receipt), async {
            round_trips(&elsewhere).await;
            elsewhere.store(std::slice::from_ref(&stored)).await;
        })
        .await;
        assert_eq!(round.first, Applied);
        assert_eq!(fixture.stats().await.leased, 0, "the ack took effect");
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.id, stored.id, "the enqueue took effect");
        fixture.ack(&delivery.receipt).await;
        if !round.was_stopped {
            break;
        }
    }
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
                    fixture.change(&delivery.receipt, nack(0)).await;
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
