//! C1 and X1: calls that are broken off at every await point, and repeated.
//!
//! A call that was dropped may still be under way in the store, so these checks do not ask
//! what it did but whether the books balance in the end.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use queue_api::{LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, QueueStats, Redrive};

use crate::{
    drop_after::DropAfter,
    fixture::{Fixture, dead_letter, extend, msg, nack},
};

/// More polls than any call takes; one that takes more is broken off nowhere new.
const MOST_POLLS: usize = 200;

/// Breaks off `call` at its first await point, then a fresh one at its second, and so on until
/// one runs to its end. After each, `aftermath` looks at what was left.
async fn at_every_await_point<T>(
    mut call: impl AsyncFnMut(usize) -> T,
    mut aftermath: impl AsyncFnMut(usize, Option<T>),
) {
    for polls in 1..=MOST_POLLS {
        let output = {
            let future = pin!(call(polls));
            DropAfter::new(future, polls).await
        };
        let finished = output.is_some();
        aftermath(polls, output).await;
        if finished {
            return;
        }
    }
}

/// Lets leases run out and leases again until every one of `expected` has come, and asserts
/// that nothing else does.
async fn expect_in_the_end(fixture: &Fixture, expected: &[String]) {
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        fixture.pass(10_000).await;
        for delivery in fixture.lease(1000).await {
            let id = delivery.id.to_string();
            assert!(
                expected.contains(id.as_str()),
                "{id} came, though it was settled"
            );
            seen.insert(id);
        }
        if seen.len() == expected.len() {
            return;
        }
    }
    panic!("expected {expected:?} in the end, but only {seen:?} came");
}

fn trio(polls: usize) -> [String; 3] {
    ["a", "b", "c"].map(|n| format!("{n}{polls}"))
}

pub(super) async fn a_dropped_enqueue_loses_nothing(fixture: Fixture) {
    let mut reported = Vec::new();
    at_every_await_point(
        async |polls| {
            let messages = trio(polls).map(|id| msg(&id));
            fixture
                .backend()
                .enqueue(&fixture.name, &messages)
                .await
                .expect("enqueue succeeds")
        },
        async |polls, outcomes| {
            if outcomes.is_some() {
                reported.extend(trio(polls));
            }
            // Whatever the dropped one did, the queue takes what comes next.
            let id = format!("after{polls}");
            fixture.store(&[msg(&id)]).await;
            reported.push(id);
        },
    )
    .await;
    fixture.pass(10_000).await;
    let deliveries = fixture.lease(1000).await;
    for id in &reported {
        assert!(
            deliveries.iter().any(|delivery| delivery.id.as_str() == id),
            "{id} is lost"
        );
    }
    let distinct: BTreeSet<_> = deliveries.iter().map(|delivery| &delivery.id).collect();
    assert_eq!(distinct.len(), deliveries.len(), "nothing is there twice");
}

pub(super) async fn a_dropped_lease_loses_nothing(fixture: Fixture) {
    let mut stored = Vec::new();
    for polls in 1..=MOST_POLLS {
        // Fresh ones each time, so that there is something to lease however many were lost.
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        stored.extend(trio(polls));
        let options = LeaseOptions::new(2);
        let call = pin!(fixture.backend().lease(&fixture.name, &options));
        if DropAfter::new(call, polls).await.is_some() {
            break;
        }
    }
    expect_in_the_end(&fixture, &stored).await;
}

pub(super) async fn a_dropped_ack_is_done_or_not(fixture: Fixture) {
    let mut acked_for_certain = Vec::new();
    let mut not_acked = BTreeSet::new();
    for polls in 1..=MOST_POLLS {
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        let leased = fixture.lease_for(3, 3_600_000).await;
        let receipts = [leased[0].receipt.clone(), leased[1].receipt.clone()];
        not_acked.insert(leased[2].id.clone());
        let call = pin!(fixture.backend().ack(&fixture.name, &receipts));
        if DropAfter::new(call, polls).await.is_some() {
            acked_for_certain = vec![leased[0].id.clone(), leased[1].id.clone()];
            break;
        }
    }
    // The acks that were broken off were made or not, and then the message comes back.
    fixture.pass(3_600_000).await;
    for delivery in fixture.lease(1000).await {
        let id = &delivery.id;
        assert!(!acked_for_certain.contains(id), "{id} was acked, and came");
        not_acked.remove(id);
        assert_eq!(fixture.ack(&delivery.receipt).await, LeaseOutcome::Applied);
    }
    assert!(not_acked.is_empty(), "nobody acked {not_acked:?}");
    assert_eq!(
        fixture.stats().await,
        QueueStats::default(),
        "everything was acked in the end"
    );
}

pub(super) async fn a_dropped_change_is_done_or_not(fixture: Fixture) {
    for action in [extend(5000), nack(5000), LeaseAction::Release] {
        let kind = format!("{action:?}");
        let kind = &kind[..4];
        let mut expected = Vec::new();
        for polls in 1..=MOST_POLLS {
            let names = trio(polls).map(|id| format!("{kind}-{id}"));
            fixture.store(&names.clone().map(|id| msg(&id))).await;
            let changes: Vec<_> = fixture
                .lease_for(3, 3_600_000)
                .await
                .into_iter()
                .map(|delivery| LeaseChange {
                    receipt: delivery.receipt,
                    action: action.clone(),
                })
                .collect();
            expected.extend(names);
            let call = pin!(fixture.backend().change(&fixture.name, &changes));
            let done = DropAfter::new(call, polls).await;
            // Not to be met by the next round's lease.
            fixture.lease_for(1000, 3_600_000).await;
            if done.is_some() {
                break;
            }
        }
        fixture.pass(3_600_000).await;
        expect_in_the_end(&fixture, &expected).await;
        fixture.pass(10_000).await;
        for delivery in fixture.lease(1000).await {
            fixture.ack(&delivery.receipt).await;
        }
    }
}

pub(super) async fn a_dropped_dead_lettering_is_done_or_not(fixture: Fixture) {
    let mut stored = 0;
    for polls in 1..=MOST_POLLS {
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        stored += 3;
        let leased = fixture.lease_for(3, 3_600_000).await.into_iter();
        let changes = leased.map(|delivery| LeaseChange::dead_letter(delivery.receipt, "no"));
        let changes: Vec<_> = changes.collect();
        let call = pin!(fixture.backend().change(&fixture.name, &changes));
        if DropAfter::new(call, polls).await.is_some() {
            break;
        }
    }
    expect_dead_or_alive(&fixture, stored).await;
}

pub(super) async fn a_dropped_burial_loses_nothing(fixture: Fixture) {
    let mut stored = 0;
    for polls in 1..=MOST_POLLS {
        let exhausted = trio(polls).map(|id| msg(&id).with_max_attempts(1));
        fixture.store(&exhausted).await;
        stored += 3;
        fixture.lease_for(3, 1).await;
        fixture.pass(1).await;
        let options = LeaseOptions::new(3);
        let call = pin!(fixture.backend().lease(&fixture.name, &options));
        if DropAfter::new(call, polls).await.is_some() {
            break;
        }
    }
    expect_dead_or_alive(&fixture, stored).await;
}

pub(super) async fn a_dropped_redrive_loses_nothing(fixture: Fixture) {
    let mut stored = 0;
    for polls in 1..=MOST_POLLS {
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        stored += 3;
        for delivery in fixture.lease(3).await {
            fixture
                .change(&delivery.receipt, dead_letter("for now"))
                .await;
        }
        let call = pin!(fixture.admin().redrive(&fixture.name, &Redrive::All));
        let done = DropAfter::new(call, polls).await.is_some();
        // Not to be met by the next round's lease.
        fixture.lease_for(1000, 3_600_000).await;
        if done {
            break;
        }
    }
    expect_dead_or_alive(&fixture, stored).await;
}

/// Lets leases run out and leases again until of the messages that were stored each is a dead
/// letter or comes. What a dropped call leased may be on its way back the first time.
async fn expect_dead_or_alive(fixture: &Fixture, stored: u64) {
    let mut seen = Vec::new();
    for _ in 0..20 {
        fixture.pass(3_600_000).await;
        let alive = fixture.lease(1000).await.len() as u64;
        let dead = fixture.stats().await.dead;
        assert!(alive + dead <= stored, "{alive} came, {dead} are dead");
        if alive + dead == stored {
            return;
        }
        seen.push((alive, dead));
    }
    panic!("{stored} in the end, and not so many that came and are dead: {seen:?}");
}

pub(super) async fn a_dropped_wait_wakes_others(fixture: Fixture) {
    let wait = |fixture: &Fixture| {
        let fixture = fixture.clone();
        async move {
            fixture
                .backend()
                .wait(&fixture.name, Duration::from_secs(24 * 3600))
                .await
        }
    };
    let other = tokio::spawn(wait(&fixture));
    for polls in 1..10 {
        let call = pin!(wait(&fixture));
        let dropped = DropAfter::new(call, polls);
        // A wait that is not woken is not polled again either, so it is given up after a while.
        let _ = tokio::time::timeout(Duration::from_millis(20), dropped).await;
    }
    fixture.store(&[msg("m")]).await;
    other
        .await
        .expect("no panic")
        .expect("the other wait is woken");
    assert_eq!(fixture.lease(10).await.len(), 1);
}

pub(super) async fn a_broken_off_enqueue_may_be_repeated(fixture: Fixture) {
    let mut stored = Vec::new();
    at_every_await_point(
        async |polls| {
            let messages = trio(polls).map(|id| msg(&id));
            fixture
                .backend()
                .enqueue(&fixture.name, &messages)
                .await
                .expect("enqueue succeeds")
        },
        async |polls, _| {
            fixture.enqueue(&trio(polls).map(|id| msg(&id))).await;
            stored.extend(trio(polls));
        },
    )
    .await;
    let mut ids: Vec<_> = fixture
        .lease(1000)
        .await
        .into_iter()
        .map(|d| d.id.to_string())
        .collect();
    ids.sort();
    stored.sort();
    assert_eq!(ids, stored, "each is there exactly once");
}

pub(super) async fn a_broken_off_settlement_may_be_repeated(fixture: Fixture) {
    for polls in 1..=MOST_POLLS {
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        let leased = fixture.lease(3).await;
        let receipts: Vec<_> = leased
            .iter()
            .map(|delivery| delivery.receipt.clone())
            .collect();
        let done = {
            let call = pin!(fixture.backend().ack(&fixture.name, &receipts));
            DropAfter::new(call, polls).await
        };
        // `Applied` or `Lost`, according to what the first one did; but gone either way.
        fixture.ack_all(&receipts).await;
        assert_eq!(fixture.stats().await, QueueStats::default());
        fixture.pass(10_000).await;
        fixture
            .expect_none_ready("the repeated ack took effect")
            .await;
        if done.is_some() {
            break;
        }
    }
}
