//! C2: races of two calls, on two connections to the same store.
//!
//! The calls race by construction, not by luck: [`interleave`] stops one of them at each of its
//! await points while the other runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    time::Duration,
};

use queue_api::{
    EnqueueOutcome::Stored,
    LeaseAction,
    LeaseOutcome::{Applied, Lost},
    NewMessage, Receipt,
};
use tokio::time::timeout;

use crate::{
    fixture::{Fixture, dead_letter, extend, id_of, msg, nack, receipts},
    poll_at_most::{every_await_point, poll_at_most},
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

/// Stops each of two calls at each of its await points while the other runs elsewhere. `prepare` makes
/// what they race for, from an id that is new each time. `judge` gets both outputs.
pub(super) async fn both_ways<C, A, B>(
    fixture: &Fixture,
    prepare: impl AsyncFn(&str) -> C,
    one: impl AsyncFn(&Fixture, &C) -> A,
    other: impl AsyncFn(&Fixture, &C) -> B,
    judge: impl AsyncFn(C, A, B),
) {
    let elsewhere = fixture.reconnect().await;
    for polls in every_await_point() {
        let prize = prepare(&format!("one{polls}")).await;
        let round = interleave(polls, one(fixture, &prize), async {
            round_trips(&elsewhere).await;
            other(&elsewhere, &prize).await
        })
        .await;
        judge(prize, round.first, round.second).await;
        if !round.was_stopped {
            break;
        }
    }
    for polls in every_await_point() {
        let prize = prepare(&format!("other{polls}")).await;
        let round = interleave(polls, other(fixture, &prize), async {
            round_trips(&elsewhere).await;
            one(&elsewhere, &prize).await
        })
        .await;
        judge(prize, round.second, round.first).await;
        if !round.was_stopped {
            break;
        }
    }
}

/// Waits for round trips, so that a store has surely handled the last request of a stopped call.
async fn round_trips(fixture: &Fixture) {
    for _ in 0..2 {
        fixture.stats().await;
    }
}

/// Stores a message and lets its lease expire. The receipt is late, but current.
async fn expired_lease(fixture: &Fixture, message: NewMessage) -> Receipt {
    fixture.store(&[message]).await;
    let receipt = fixture.lease_one().await.receipt;
    fixture.pass(10_000).await;
    receipt
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
    let pairs = actions
        .iter()
        .flat_map(|action| actions.iter().map(move |other| (action, other)));
    for (pair, (action, other)) in pairs.enumerate() {
        for polls in every_await_point() {
            fixture.store(&[msg(&format!("m{pair}-{polls}"))]).await;
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

/// A claim reads the state of a message first and takes it later. In between, a late change may
/// have changed the state, but not the number of attempts.
pub(super) async fn a_late_change_and_a_lease_do_not_both_succeed(fixture: Fixture) {
    for action in [extend(60_000), nack(60_000), dead_letter("no")] {
        one_of_two_succeeds(&fixture, Some(action)).await;
    }
}

async fn one_of_two_succeeds(fixture: &Fixture, action: Option<LeaseAction>) {
    let prepare = async |id: &str| expired_lease(fixture, msg(id)).await;
    let lease = async |queue: &Fixture, _: &Receipt| !queue.lease(1).await.is_empty();
    let settle = async |queue: &Fixture, receipt: &Receipt| {
        let outcome = match action.clone() {
            None => queue.ack(receipt).await,
            Some(action) => queue.change(receipt, action).await,
        };
        outcome == Applied
    };
    let judge = async |_, leased, settled| {
        assert!(
            settled != leased,
            "either the lease or {action:?} (None is an ack): {leased}, {settled}"
        );
        fixture.pass(60_000).await;
        ack_everything(fixture).await;
    };
    both_ways(fixture, prepare, lease, settle, judge).await;
}

/// A claim reads a message first and takes it later. In between, the message may be acked and its
/// id used again.
pub(super) async fn a_lease_takes_no_reused_id(fixture: &Fixture) {
    let elsewhere = fixture.reconnect().await;
    let life =
        |number: &'static str, id: &str| msg(id).with_payload(number).with_header("life", number);
    let second_life = life("2", "a");
    for polls in every_await_point() {
        fixture
            .store(&["a", "b", "c"].map(|id| life("1", id)))
            .await;
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
        for delivery in &leased {
            assert_eq!(delivery.payload, delivery.headers["life"]);
        }
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

/// Three messages are ready, and each of two calls asks for two.
pub(super) async fn two_leases_share_no_message(fixture: &Fixture) {
    let elsewhere = fixture.reconnect().await;
    for polls in every_await_point() {
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
        ack_everything(fixture).await;
        if !round.was_stopped {
            break;
        }
    }
}

/// Two calls have two ids in common.
pub(super) async fn two_enqueues_store_an_id_once(fixture: &Fixture) {
    let elsewhere = fixture.reconnect().await;
    for polls in every_await_point() {
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
        ack_everything(fixture).await;
        if !round.was_stopped {
            break;
        }
    }
}

/// Neither call undoes the other.
pub(super) async fn an_ack_and_an_enqueue_both_take_effect(fixture: &Fixture) {
    let elsewhere = fixture.reconnect().await;
    for polls in every_await_point() {
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
        assert!(fixture.ack(&delivery.receipt).await.is_applied());
        if !round.was_stopped {
            break;
        }
    }
}

pub(super) async fn ack_everything(fixture: &Fixture) {
    let receipts = receipts(fixture.lease(100).await);
    fixture.ack_all(&receipts).await;
}
