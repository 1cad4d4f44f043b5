//! C1 and X1: calls that are dropped at every await point, and calls that are repeated.
//!
//! A dropped call may still take effect in the store. So these checks do not ask what it did, but
//! whether every message is accounted for in the end.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use queue_api::{
    LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, QueueStats, Redrive, Result,
};

use crate::{
    fixture::{Fixture, dead_letter, extend, msg, nack, receipts},
    panic_location::{called_from_here, caught},
    poll_at_most::{every_await_point, poll_at_most},
};

/// Longer than any check may take.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// Drops a call at its first await point, the next call at its second, and so on, until one ends.
/// `afterwards` runs after each.
async fn at_every_await_point<T>(
    mut call: impl AsyncFnMut(usize) -> T,
    mut afterwards: impl AsyncFnMut(usize, Option<T>),
) {
    for polls in every_await_point() {
        let output = poll_at_most(polls, pin!(call(polls))).await;
        let finished = output.is_some();
        afterwards(polls, output).await;
        if finished {
            return;
        }
    }
}

/// Lets leases expire and leases again until every one of `expected` was delivered, and no others.
async fn expect_in_the_end(fixture: &Fixture, expected: &[String]) {
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        fixture.pass(10_000).await;
        for delivery in fixture.lease(1000).await {
            let id = delivery.id.to_string();
            assert!(
                expected.contains(id.as_str()),
                "{id} was delivered, but it was settled"
            );
            seen.insert(id);
        }
        if seen.len() == expected.len() {
            return;
        }
    }
    panic!("expected {expected:?}, but only {seen:?} were delivered");
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
            // Whatever the dropped call did, the queue accepts the next message.
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
    assert_eq!(
        distinct.len(),
        deliveries.len(),
        "no message is stored twice"
    );
}

pub(super) async fn a_dropped_lease_loses_nothing(fixture: Fixture) {
    let mut stored = Vec::new();
    for polls in every_await_point() {
        // New messages each time, so that some are ready even if a dropped call leased the others.
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        stored.extend(trio(polls));
        let options = LeaseOptions::new(2);
        if poll_at_most(
            polls,
            pin!(fixture.backend().lease(&fixture.name, &options)),
        )
        .await
        .is_some()
        {
            break;
        }
    }
    expect_in_the_end(&fixture, &stored).await;
}

/// The message comes while the call waits, so the drop meets the first lease, the wait or the second
/// lease.
pub(super) async fn a_dropped_lease_that_waits_loses_nothing(fixture: Fixture) {
    let mut stored = Vec::new();
    for polls in every_await_point() {
        let id = format!("m{polls}");
        let producer = fixture.reconnect().await;
        let message = msg(&id);
        stored.push(id);
        let storing = tokio::spawn(caught(async move { producer.store(&[message]).await }));
        let queue = fixture.handle();
        let lease = pin!(queue.lease_within(FOR_EVER));
        let ended = fixture.wait_ends(poll_at_most(polls, lease)).await;
        let has_stored = storing.await.expect("panics are caught");
        has_stored.unwrap_or_else(|panic| panic.resume());
        if let Some(leased) = ended {
            leased.expect("lease succeeds").expect("a message");
            break;
        }
    }
    expect_in_the_end(&fixture, &stored).await;
}

pub(super) async fn a_dropped_ack_is_done_or_not(fixture: Fixture) {
    let mut acked_for_certain = Vec::new();
    let mut not_acked = BTreeSet::new();
    for polls in every_await_point() {
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        let leased = fixture.lease_for(3, 3_600_000).await;
        let receipts = [leased[0].receipt.clone(), leased[1].receipt.clone()];
        not_acked.insert(leased[2].id.clone());
        if poll_at_most(polls, pin!(fixture.backend().ack(&fixture.name, &receipts)))
            .await
            .is_some()
        {
            acked_for_certain = vec![leased[0].id.clone(), leased[1].id.clone()];
            break;
        }
    }
    // A dropped ack took effect, or the message comes back.
    fixture.pass(3_600_000).await;
    for delivery in fixture.lease(1000).await {
        let id = &delivery.id;
        assert!(
            !acked_for_certain.contains(id),
            "{id} was delivered after its ack"
        );
        not_acked.remove(id);
        assert_eq!(fixture.ack(&delivery.receipt).await, LeaseOutcome::Applied);
    }
    assert!(
        not_acked.is_empty(),
        "{not_acked:?} were never acked and are lost"
    );
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
        for polls in every_await_point() {
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
            let done = poll_at_most(
                polls,
                pin!(fixture.backend().change(&fixture.name, &changes)),
            )
            .await;
            // Keeps these messages out of the next round.
            fixture.lease_for(1000, 3_600_000).await;
            if done.is_some() {
                break;
            }
        }
        fixture.pass(3_600_000).await;
        expect_in_the_end(&fixture, &expected).await;
        fixture.pass(10_000).await;
        for delivery in fixture.lease(1000).await {
            assert!(fixture.ack(&delivery.receipt).await.is_applied());
        }
    }
}

pub(super) async fn a_dropped_dead_lettering_is_done_or_not(fixture: Fixture) {
    let mut stored = 0;
    for polls in every_await_point() {
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        stored += 3;
        let leased = fixture.lease_for(3, 3_600_000).await.into_iter();
        let changes = leased.map(|delivery| LeaseChange::dead_letter(delivery.receipt, "no"));
        let changes: Vec<_> = changes.collect();
        if poll_at_most(
            polls,
            pin!(fixture.backend().change(&fixture.name, &changes)),
        )
        .await
        .is_some()
        {
            break;
        }
    }
    expect_dead_or_alive(&fixture, stored).await;
}

pub(super) async fn a_dropped_lease_of_exhausted_messages_loses_nothing(fixture: Fixture) {
    let mut stored = 0;
    for polls in every_await_point() {
        let exhausted = trio(polls).map(|id| msg(&id).with_max_attempts(1));
        fixture.store(&exhausted).await;
        stored += 3;
        fixture.lease_for(3, 1).await;
        fixture.pass(1).await;
        let options = LeaseOptions::new(3);
        if poll_at_most(
            polls,
            pin!(fixture.backend().lease(&fixture.name, &options)),
        )
        .await
        .is_some()
        {
            break;
        }
    }
    expect_dead_or_alive(&fixture, stored).await;
}

pub(super) async fn a_dropped_redrive_loses_nothing(fixture: Fixture) {
    let mut stored = 0;
    for polls in every_await_point() {
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        stored += 3;
        for delivery in fixture.lease(3).await {
            assert!(
                fixture
                    .change(&delivery.receipt, dead_letter("for now"))
                    .await
                    .is_applied()
            );
        }
        let done = poll_at_most(
            polls,
            pin!(fixture.admin().redrive(&fixture.name, &Redrive::All)),
        )
        .await
        .is_some();
        // Keeps these messages out of the next round.
        fixture.lease_for(1000, 3_600_000).await;
        if done {
            break;
        }
    }
    expect_dead_or_alive(&fixture, stored).await;
}

/// Every stored message is a dead letter or is delivered. Tries several times, because the lease of
/// a dropped call may have to expire first.
async fn expect_dead_or_alive(fixture: &Fixture, stored: u64) {
    let mut seen = Vec::new();
    for _ in 0..20 {
        fixture.pass(3_600_000).await;
        let alive = fixture.lease(1000).await.len() as u64;
        let dead = fixture.stats().await.dead;
        assert!(
            alive + dead <= stored,
            "{stored} stored, {alive} delivered, {dead} dead"
        );
        if alive + dead == stored {
            return;
        }
        seen.push((alive, dead));
    }
    panic!("{stored} stored, but fewer delivered and dead: {seen:?}");
}

/// Repeats a call until it succeeds. The dropped call may still compete with the first repeats, so
/// their outcome may be unknown, which is an error.
#[track_caller]
fn repeated<T>(mut call: impl AsyncFnMut() -> Result<T>) -> impl Future<Output = T> {
    const REPEATS: usize = 10;
    called_from_here(async move {
        for _ in 1..REPEATS {
            match call().await {
                Err(error) if error.is_retryable() => {}
                answer => return answer.expect("the repeat succeeds"),
            }
        }
        call().await.expect("the repeats succeed in the end")
    })
}

pub(super) async fn a_dropped_enqueue_may_be_repeated(fixture: Fixture) {
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
            let messages = trio(polls).map(|id| msg(&id));
            repeated(async || fixture.backend().enqueue(&fixture.name, &messages).await).await;
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
    assert_eq!(ids, stored, "each is stored exactly once");
}

pub(super) async fn a_dropped_ack_may_be_repeated(fixture: Fixture) {
    for polls in every_await_point() {
        fixture.store(&trio(polls).map(|id| msg(&id))).await;
        let receipts = receipts(fixture.lease(3).await);
        let ack = fixture.backend().ack(&fixture.name, &receipts);
        let done = poll_at_most(polls, pin!(ack)).await;
        // `Applied` or `Lost`, depending on the dropped ack. In both cases the message is gone.
        repeated(async || fixture.backend().ack(&fixture.name, &receipts).await).await;
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
