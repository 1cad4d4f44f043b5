//! C2: races of two calls, on two connections to the same store.

use std::collections::{BTreeMap, BTreeSet};

use queue_api::{
    Delivery, EnqueueOutcome,
    EnqueueOutcome::Stored,
    LeaseAction, LeaseOutcome,
    LeaseOutcome::{Applied, Lost},
    NewMessage, Receipt,
};

use crate::{
    fixture::{Fixture, dead_letter, extend, id_of, msg, nack, receipts},
    race::{race, race_on_threads},
};

/// Leases a message until its lease has expired. The receipt is late, but current.
async fn expired_lease(fixture: &Fixture, message: NewMessage) -> Receipt {
    fixture.store(&[message]).await;
    let receipt = fixture.lease_one().await.receipt;
    fixture.pass(10_000).await;
    receipt
}

/// An ack, or a change.
async fn settle(queue: &Fixture, receipt: &Receipt, action: &Option<LeaseAction>) -> LeaseOutcome {
    match action.clone() {
        None => queue.ack(receipt).await,
        Some(action) => queue.change(receipt, action).await,
    }
}

pub(super) async fn concurrent_calls_settle_a_receipt_once(fixture: Fixture) {
    let release = LeaseAction::Release;
    let actions = [None, Some(nack(0)), Some(release), Some(dead_letter("no"))];
    for (n, action) in actions.iter().enumerate() {
        for (m, other) in actions[n..].iter().enumerate() {
            let prepare = async |id: &str| {
                fixture.store(&[msg(&format!("{id}-{n}-{m}"))]).await;
                fixture.lease_one().await.receipt
            };
            let judge = async |_, first, second| {
                let outcomes = [first, second];
                let applied = outcomes.iter().filter(|o| **o == Applied).count();
                assert_eq!(applied, 1, "{action:?} and {other:?}: {outcomes:?}");
                ack_everything(&fixture).await;
            };
            let one = async |queue: &Fixture, receipt: &_| settle(queue, receipt, action).await;
            let other = async |queue: &Fixture, receipt: &_| settle(queue, receipt, other).await;
            match (action, m) {
                (None, 0) => race_on_threads(&fixture, prepare, one, other, judge).await,
                _ => drop(race(&fixture, prepare, one, other, judge).await),
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
    let kind = format!("{action:?}");
    let prepare = async |id: &str| expired_lease(fixture, msg(&format!("{id} {kind}"))).await;
    let lease = async |queue: &Fixture, _: &Receipt| !queue.lease(1).await.is_empty();
    let late =
        async |queue: &Fixture, receipt: &Receipt| settle(queue, receipt, &action).await == Applied;
    let judge = async |_, leased, settled| {
        assert!(
            settled != leased,
            "either the lease or {action:?} (None is an ack): {leased}, {settled}"
        );
        fixture.pass(60_000).await;
        ack_everything(fixture).await;
    };
    match action {
        None => race_on_threads(fixture, prepare, lease, late, judge).await,
        Some(_) => drop(race(fixture, prepare, lease, late, judge).await),
    }
}

/// A claim reads a message first and takes it later. In between, the message may be acked and its
/// id used again.
pub(super) async fn a_lease_takes_no_reused_id(fixture: &Fixture) {
    let life =
        |number: &'static str, id: &str| msg(id).with_payload(number).with_header("life", number);
    let prepare = async |_: &str| {
        fixture
            .store(&["a", "b", "c"].map(|id| life("1", id)))
            .await;
        let deliveries = fixture.lease(3).await.into_iter();
        let receipts: BTreeMap<_, _> = deliveries.map(|d| (d.id, d.receipt)).collect();
        fixture.pass(10_000).await;
        receipts
    };
    let lease = async |queue: &Fixture, _: &BTreeMap<_, _>| queue.lease(3).await;
    let ack_and_reuse = async |queue: &Fixture, receipts: &BTreeMap<_, Receipt>| {
        let [a, b] = ["a", "b"].map(|id| receipts[&id_of(id)].clone());
        let acked = queue.ack_all(&[b, a]).await;
        if acked[1] == Applied {
            queue.store(&[life("2", "a")]).await;
        }
        acked
    };
    let judge = async |_, leased: Vec<Delivery>, acked: Vec<LeaseOutcome>| {
        let leased = [leased, fixture.lease(3).await].concat();
        let mut seen: Vec<_> = leased
            .iter()
            .map(|d| (d.id.as_str(), &*d.headers["life"], d.attempt))
            .collect();
        for delivery in &leased {
            assert_eq!(delivery.payload, delivery.headers["life"]);
        }
        seen.sort_unstable();
        let expected = [
            match acked[1] {
                Applied => Some(("a", "2", 1)),
                Lost => Some(("a", "1", 2)),
            },
            (acked[0] == Lost).then_some(("b", "1", 2)),
            Some(("c", "1", 2)),
        ];
        let expected: Vec<_> = expected.into_iter().flatten().collect();
        assert_eq!(seen, expected, "acks of b and a: {acked:?}");
        for delivery in &leased {
            assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
        }
    };
    race_on_threads(fixture, prepare, lease, ack_and_reuse, judge).await;
}

/// Three messages are ready, and each of two calls asks for two.
pub(super) async fn two_leases_share_no_message(fixture: &Fixture) {
    let prepare = async |id: &str| {
        let messages = ["a", "b", "c"].map(|name| msg(&format!("{name}-{id}")));
        fixture.store(&messages).await;
    };
    let lease = async |queue: &Fixture, (): &()| queue.lease(2).await;
    let judge = async |(), first: Vec<Delivery>, second: Vec<Delivery>| {
        let leased = [first, second].concat();
        let distinct: BTreeSet<_> = leased.iter().map(|delivery| &delivery.id).collect();
        assert_eq!(distinct.len(), leased.len(), "two leases: {leased:?}");
        assert!(!leased.is_empty(), "three are ready, one call gets some");
        for delivery in leased {
            assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
        }
        ack_everything(fixture).await;
    };
    race_on_threads(fixture, prepare, lease, lease, judge).await;
}

/// Two calls have two ids in common.
pub(super) async fn two_enqueues_store_an_id_once(fixture: &Fixture) {
    let prepare = async |id: &str| id.to_owned();
    let enqueue = |names: [&'static str; 3]| {
        async move |queue: &Fixture, id: &String| {
            let messages = names.map(|name| msg(&format!("{name}-{id}")));
            queue.enqueue(&messages).await
        }
    };
    let judge = async |_, first: Vec<EnqueueOutcome>, second: Vec<EnqueueOutcome>| {
        let outcomes = [first, second].concat();
        let stored = outcomes.iter().filter(|o| **o == Stored).count();
        assert_eq!(stored, 4, "each of 4 ids is stored once: {outcomes:?}");
        assert_eq!(fixture.stats().await.ready, 4);
        ack_everything(fixture).await;
    };
    let (abc, cbd) = (enqueue(["a", "b", "c"]), enqueue(["c", "b", "d"]));
    race_on_threads(fixture, prepare, abc, cbd, judge).await;
}

/// Neither call undoes the other.
pub(super) async fn an_ack_and_an_enqueue_both_take_effect(fixture: &Fixture) {
    let prepare = async |id: &str| {
        let messages = ["a", "b"].map(|name| msg(&format!("{name}-{id}")));
        fixture.store(&messages[..1]).await;
        (fixture.lease_one().await.receipt, messages)
    };
    let ack = async |queue: &Fixture, (receipt, _): &(Receipt, _)| queue.ack(receipt).await;
    let enqueue = async |queue: &Fixture, (_, messages): &(_, [NewMessage; 2])| {
        queue.store(&messages[1..]).await;
    };
    let judge = async |(_, messages): (_, [NewMessage; 2]), acked, ()| {
        assert_eq!(acked, Applied);
        assert_eq!(fixture.stats().await.leased, 0, "the ack took effect");
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.id, messages[1].id, "the enqueue took effect");
        assert!(fixture.ack(&delivery.receipt).await.is_applied());
    };
    race_on_threads(fixture, prepare, ack, enqueue, judge).await;
}

pub(super) async fn ack_everything(fixture: &Fixture) {
    let receipts = receipts(fixture.lease(100).await);
    fixture.ack_all(&receipts).await;
}
