//! C1 and X1: calls that are dropped at every await point, and calls that are repeated.
//!
//! A dropped call may still take effect in the store. So these checks do not ask what it did, but
//! whether every message is accounted for in the end.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use queue_api::{
    LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, Purge, QueueStats, Redrive, Result,
};

use crate::{
    fixture::{Fixture, OneQueue, dead_letter, extend, ids, msg, nack, receipts},
    panic_location::{called_from_here, caught},
    race::Stops,
};

/// Longer than any check may take.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// More messages than a check stores.
const ALL: usize = 100_000;

/// Lets leases expire and leases again until every one of `expected` was delivered, and no others.
async fn expect_in_the_end(fixture: &Fixture, expected: &[String]) {
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        fixture.pass(10_000).await;
        for delivery in fixture.lease(ALL).await {
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

fn trio(call: usize) -> [String; 3] {
    ["a", "b", "c"].map(|n| format!("{n}{call}"))
}

pub(super) async fn a_dropped_enqueue_loses_nothing(fixture: Fixture) {
    let mut reported = Vec::new();
    let mut stops = Stops::new(&fixture);
    while let Some(number) = stops.next_call() {
        let messages = trio(number).map(|id| msg(&id));
        let enqueue = fixture.backend().enqueue(&fixture.name, &messages);
        if let Some(outcomes) = stops.poll(pin!(enqueue)).await {
            outcomes.expect("enqueue succeeds");
            reported.extend(trio(number));
        }
        // Whatever the dropped call did, the queue accepts the next message.
        let id = format!("after{number}");
        fixture.store(&[msg(&id)]).await;
        reported.push(id);
    }
    fixture.pass(10_000).await;
    let deliveries = fixture.lease(ALL).await;
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
    let mut stops = Stops::new(&fixture);
    while let Some(number) = stops.next_call() {
        // New messages each time, so that some are ready even if a dropped call leased the others.
        fixture.store(&trio(number).map(|id| msg(&id))).await;
        stored.extend(trio(number));
        let options = LeaseOptions::new(2);
        let lease = fixture.backend().lease(&fixture.name, &options);
        stops.poll(pin!(lease)).await;
    }
    expect_in_the_end(&fixture, &stored).await;
}

/// The message comes while the call waits, so the drop meets the first lease, the wait or the second
/// lease.
pub(super) async fn a_dropped_lease_that_waits_loses_nothing(fixture: Fixture) {
    let mut stored = Vec::new();
    let mut stops = Stops::new(&fixture);
    let elsewhere = fixture.reconnect().await;
    while let Some(number) = stops.next_call() {
        let id = format!("m{number}");
        let producer = elsewhere.clone();
        let message = msg(&id);
        stored.push(id);
        let storing = tokio::spawn(caught(async move { producer.store(&[message]).await }));
        let queue = fixture.handle();
        let lease = pin!(queue.lease_within(FOR_EVER));
        let ended = fixture.wait_ends(stops.poll(lease)).await;
        let has_stored = storing.await.expect("panics are caught");
        has_stored.unwrap_or_else(|panic| panic.resume());
        if let Some(leased) = ended {
            leased.expect("lease succeeds").expect("a message");
        }
    }
    expect_in_the_end(&fixture, &stored).await;
}

pub(super) async fn a_dropped_ack_is_done_or_not(fixture: Fixture) {
    let mut acked_for_certain = Vec::new();
    let mut not_acked = BTreeSet::new();
    let mut stops = Stops::new(&fixture);
    while let Some(number) = stops.next_call() {
        fixture.store(&trio(number).map(|id| msg(&id))).await;
        let leased = fixture.lease_for(3, 3_600_000).await;
        let receipts = [leased[0].receipt.clone(), leased[1].receipt.clone()];
        not_acked.insert(leased[2].id.clone());
        let ack = fixture.backend().ack(&fixture.name, &receipts);
        if let Some(outcomes) = stops.poll(pin!(ack)).await {
            outcomes.expect("ack succeeds");
            acked_for_certain.extend(leased[..2].iter().map(|each| each.id.clone()));
        }
    }
    // A dropped ack took effect, or the message comes back.
    fixture.pass(3_600_000).await;
    for delivery in fixture.lease(ALL).await {
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
        let mut stops = Stops::new(&fixture);
        while let Some(number) = stops.next_call() {
            let names = trio(number).map(|id| format!("{kind}-{id}"));
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
            let change = fixture.backend().change(&fixture.name, &changes);
            stops.poll(pin!(change)).await;
            // Keeps these messages out of the next round.
            fixture.lease_for(ALL, 3_600_000).await;
        }
        fixture.pass(3_600_000).await;
        expect_in_the_end(&fixture, &expected).await;
        fixture.pass(10_000).await;
        for delivery in fixture.lease(ALL).await {
            assert!(fixture.ack(&delivery.receipt).await.is_applied());
        }
    }
}

pub(super) async fn a_dropped_dead_lettering_is_done_or_not(fixture: Fixture) {
    let mut stored = 0;
    let mut stops = Stops::new(&fixture);
    while let Some(number) = stops.next_call() {
        fixture.store(&trio(number).map(|id| msg(&id))).await;
        stored += 3;
        let leased = fixture.lease_for(3, 3_600_000).await.into_iter();
        let changes = leased.map(|delivery| LeaseChange::dead_letter(delivery.receipt, "no"));
        let changes: Vec<_> = changes.collect();
        let change = fixture.backend().change(&fixture.name, &changes);
        stops.poll(pin!(change)).await;
    }
    expect_dead_or_alive(&fixture, stored).await;
}

pub(super) async fn a_dropped_lease_of_exhausted_messages_loses_nothing(fixture: Fixture) {
    let mut stored = 0;
    let mut stops = Stops::new(&fixture);
    while let Some(number) = stops.next_call() {
        let exhausted = trio(number).map(|id| msg(&id).with_max_attempts(1));
        fixture.store(&exhausted).await;
        stored += 3;
        fixture.lease_for(3, 1).await;
        fixture.pass(1).await;
        let options = LeaseOptions::new(3);
        let lease = fixture.backend().lease(&fixture.name, &options);
        stops.poll(pin!(lease)).await;
    }
    expect_dead_or_alive(&fixture, stored).await;
}

pub(super) async fn a_dropped_redrive_loses_nothing(fixture: Fixture) {
    let mut stored = 0;
    let mut stops = Stops::new(&fixture);
    while let Some(number) = stops.next_call() {
        fixture.store(&trio(number).map(|id| msg(&id))).await;
        stored += 3;
        for delivery in fixture.lease(3).await {
            assert!(
                fixture
                    .change(&delivery.receipt, dead_letter("for now"))
                    .await
                    .is_applied()
            );
        }
        let redrive = fixture.admin().redrive(&fixture.name, &Redrive::All);
        stops.poll(pin!(redrive)).await;
        // Keeps these messages out of the next round.
        fixture.lease_for(ALL, 3_600_000).await;
    }
    expect_dead_or_alive(&fixture, stored).await;
}

/// What an administrator removes.
#[derive(Clone, Copy, Debug)]
enum Removal {
    Purge(Purge),
    Queue,
}

impl Removal {
    async fn call(self, queue: &OneQueue) {
        match self {
            Self::Purge(what) => drop(queue.purge(what).await),
            Self::Queue => queue.delete().await,
        }
    }
}

/// A dropped call removes messages or leaves them, but hides none: each id can be used, and what is
/// stored is delivered. Each round uses the same ids, so it also meets what an earlier call has hidden.
pub(super) async fn a_dropped_purge_or_deletion_hides_nothing(fixture: Fixture) {
    let removals = [
        (Removal::Purge(Purge::Live), "live"),
        (Removal::Purge(Purge::Dead), "dead"),
        (Removal::Queue, "queue"),
    ];
    for (removal, name) in removals {
        let queue = fixture.other_queue(name);
        let mut stops = Stops::new(&fixture);
        while stops.next_call().is_some() {
            // Not `store`: a dropped deletion may remove messages that come later.
            queue.enqueue(&["a", "b"].map(msg)).await;
            let leased = receipts(queue.lease(2).await).into_iter();
            let changes = leased.map(|receipt| LeaseChange::dead_letter(receipt, "no"));
            queue.change_all(&changes.collect::<Vec<_>>()).await;
            queue.enqueue(&["c", "d"].map(msg)).await;
            let before = queue.stats().await;
            stops.poll(pin!(removal.call(&queue))).await;
            let after = queue.stats().await;
            match removal {
                Removal::Purge(Purge::Live) => assert_eq!(after.dead, before.dead),
                Removal::Purge(Purge::Dead) => assert_eq!(after.ready, before.ready),
                Removal::Queue => {}
            }
            expect_usable(&fixture, &queue, removal).await;
        }
    }
}

/// Uses four ids until each was delivered. Tries several times, because the dropped call may remove them
/// later.
async fn expect_usable(fixture: &Fixture, queue: &OneQueue, dropped: Removal) {
    const IDS: [&str; 4] = ["a", "b", "c", "d"];
    let mut missing = BTreeSet::from(IDS);
    for _ in 0..20 {
        queue.enqueue(&IDS.map(msg)).await;
        queue.redrive(&Redrive::All).await;
        let deliveries = queue.lease(10).await;
        missing.retain(|id| !ids(&deliveries).contains(id));
        queue.ack_all(&receipts(deliveries)).await;
        if missing.is_empty() {
            return;
        }
        fixture.pass(10_000).await;
    }
    let stats = queue.stats().await;
    panic!("after a dropped {dropped:?}, {missing:?} are never delivered: {stats:?}");
}

/// Every stored message is a dead letter or is delivered. Tries several times, because the lease of
/// a dropped call may have to expire first.
async fn expect_dead_or_alive(fixture: &Fixture, stored: u64) {
    let mut seen = Vec::new();
    for _ in 0..20 {
        fixture.pass(3_600_000).await;
        let alive = fixture.lease(ALL).await.len() as u64;
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
    let mut stops = Stops::new(&fixture);
    while let Some(number) = stops.next_call() {
        let messages = trio(number).map(|id| msg(&id));
        let enqueue = fixture.backend().enqueue(&fixture.name, &messages);
        stops.poll(pin!(enqueue)).await;
        repeated(async || fixture.backend().enqueue(&fixture.name, &messages).await).await;
        stored.extend(trio(number));
    }
    let mut ids: Vec<_> = fixture
        .lease(ALL)
        .await
        .into_iter()
        .map(|d| d.id.to_string())
        .collect();
    ids.sort();
    stored.sort();
    assert_eq!(ids, stored, "each is stored exactly once");
}

pub(super) async fn a_dropped_ack_may_be_repeated(fixture: Fixture) {
    let mut stops = Stops::new(&fixture);
    while let Some(number) = stops.next_call() {
        fixture.store(&trio(number).map(|id| msg(&id))).await;
        let receipts = receipts(fixture.lease(3).await);
        let ack = fixture.backend().ack(&fixture.name, &receipts);
        stops.poll(pin!(ack)).await;
        // `Applied` or `Lost`, depending on the dropped ack. In both cases the message is gone.
        repeated(async || fixture.backend().ack(&fixture.name, &receipts).await).await;
        assert_eq!(fixture.stats().await, QueueStats::default());
        fixture.pass(10_000).await;
        fixture
            .expect_none_ready("the repeated ack took effect")
            .await;
    }
}
