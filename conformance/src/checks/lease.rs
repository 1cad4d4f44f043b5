//! L1 to L4: leases.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use queue_api::{
    Delivery, LeaseAction, LeaseChange, LeaseOptions,
    LeaseOutcome::{Applied, Lost},
};

use crate::fixture::{Fixture, extend, ids, msg, nack, receipts, sorted_ids};

pub(super) async fn a_leased_message_is_not_leased_again(fixture: Fixture) {
    fixture.store(&[msg("a"), msg("b")]).await;
    assert_eq!(sorted_ids(&fixture.lease(10).await), ["a", "b"]);
    for _ in 0..3 {
        fixture.expect_none_ready("both are leased").await;
        fixture
            .reconnect()
            .await
            .expect_none_ready("both are leased on another connection")
            .await;
        fixture.pass(3000).await;
    }
}

pub(super) async fn an_extended_lease_stays_exclusive(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    for _ in 0..5 {
        fixture.pass(9999).await;
        let outcome = fixture.change(&delivery.receipt, extend(10_000)).await;
        assert_eq!(outcome, Applied);
    }
    fixture.pass(9999).await;
    fixture.expect_none_ready("the lease was extended").await;
    assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
}

pub(super) async fn a_lease_expires_to_the_millisecond(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    fixture.lease_one().await;
    fixture.pass(9999).await;
    fixture.expect_none_ready("1 ms of the lease is left").await;
    assert_eq!(fixture.stats().await.leased, 1);
    fixture.pass(1).await;
    assert_eq!(fixture.stats().await.ready, 1, "the lease has expired");
    assert_eq!(fixture.lease_one().await.attempt, 2);
}

pub(super) async fn each_message_has_its_own_timeout(fixture: Fixture) {
    let lasting = |id: &str, secs| msg(id).with_visibility_timeout(Duration::from_secs(secs));
    fixture
        .store(&[
            lasting("thirty", 30),
            lasting("ten", 10),
            lasting("twenty", 20),
        ])
        .await;
    let start = fixture.now();
    let mut deliveries = fixture.lease(10).await;
    deliveries.sort_by_key(|delivery| delivery.lease_expires_at);
    assert_eq!(ids(&deliveries), ["ten", "twenty", "thirty"]);
    let expiries: Vec<_> = deliveries
        .iter()
        .map(|delivery| {
            delivery
                .lease_expires_at
                .duration_since(start)
                .unwrap()
                .as_secs()
        })
        .collect();
    assert_eq!(expiries, [10, 20, 30]);
    for expected in ["ten", "twenty", "thirty"] {
        fixture.pass(9999).await;
        fixture
            .expect_none_ready("1 ms of the next lease is left")
            .await;
        fixture.pass(1).await;
        assert_eq!(ids(&fixture.lease_for(10, 60_000).await), [expected]);
    }
}

pub(super) async fn the_lease_call_overrides_the_timeout(fixture: Fixture) {
    let longer = msg("longer").with_visibility_timeout(Duration::from_secs(60));
    let shorter = msg("shorter").with_visibility_timeout(Duration::from_secs(1));
    fixture.store(&[longer, shorter]).await;
    let deliveries = fixture.lease_for(10, 7000).await;
    let timeout = Duration::from_secs(7);
    for delivery in &deliveries {
        assert_eq!(delivery.visibility_timeout, timeout);
        assert_eq!(delivery.lease_expires_at, fixture.now() + timeout);
    }
    assert_eq!(deliveries.len(), 2);
    fixture.pass(6999).await;
    fixture
        .expect_none_ready("1 ms of the lease call's timeout is left")
        .await;
    fixture.pass(1).await;
    assert_eq!(sorted_ids(&fixture.lease(10).await), ["longer", "shorter"]);
}

pub(super) async fn the_override_ends_with_its_lease(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    fixture.lease_for(1, 1000).await;
    fixture.pass(1000).await;
    let second = fixture.lease_one().await;
    assert_eq!(
        second.lease_expires_at,
        fixture.now() + Duration::from_secs(10)
    );
}

pub(super) async fn a_finer_duration_is_rounded_up(fixture: Fixture) {
    // Neither the nearest millisecond nor whole microseconds are enough.
    let fine = Duration::from_millis(1) + Duration::from_nanos(1);
    let lasts_two_millis = async |what: &str| {
        fixture.pass(1).await;
        fixture.expect_none_ready(what).await;
        fixture.pass(1).await;
    };
    let message = msg("m").with_delay(fine).with_visibility_timeout(fine);
    fixture.store(&[message]).await;
    lasts_two_millis("a nanosecond of the delay is left").await;
    let delivery = fixture.lease_one().await;
    let two_millis = Duration::from_millis(2);
    assert_eq!(delivery.lease_expires_at, fixture.now() + two_millis);
    assert_eq!(delivery.visibility_timeout, two_millis);
    lasts_two_millis("a nanosecond of the lease is left").await;
    let options = LeaseOptions::new(1).with_visibility_timeout(fine);
    let leased = fixture.backend().lease(&fixture.name, &options).await;
    let leased = leased.expect("lease succeeds");
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].visibility_timeout, two_millis);
    lasts_two_millis("a nanosecond of the override is left").await;
    for action in [LeaseAction::Extend(fine), LeaseAction::Nack { delay: fine }] {
        let delivery = fixture.lease_one().await;
        assert!(
            fixture
                .change(&delivery.receipt, action.clone())
                .await
                .is_applied()
        );
        lasts_two_millis(&format!("a nanosecond of {action:?} is left")).await;
    }
    assert_eq!(fixture.lease_one().await.attempt, 5);
}

pub(super) async fn a_lease_expires_in_real_time(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let started = Instant::now();
    let first = fixture.lease_for(1, 1500).await;
    for time in [first[0].enqueued_at, first[0].lease_expires_at] {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let finer = since_epoch.subsec_nanos() % 1_000_000;
        assert_eq!(finer, 0, "{time:?} is not in whole milliseconds");
    }
    let early = fixture.lease_for(10, 1).await;
    // On a very busy machine the message may be ready again by now. The backend's clock has whole
    // milliseconds, and may be another machine's.
    assert!(
        early.is_empty() || started.elapsed().as_millis() >= 1490,
        "it was delivered again while its lease ran"
    );
    fixture.pass(1600).await;
    let second = fixture.lease_one().await;
    assert!(second.attempt > first[0].attempt);
    assert_eq!(fixture.ack(&first[0].receipt).await, Lost);
    assert_eq!(fixture.ack(&second.receipt).await, Applied);
}

pub(super) async fn attempts_count_from_one(fixture: Fixture) {
    fixture.store(&[msg("m"), msg("other")]).await;
    for attempt in 1..=5 {
        let deliveries = fixture.lease(10).await;
        assert_eq!(sorted_ids(&deliveries), ["m", "other"]);
        assert!(
            deliveries
                .iter()
                .all(|delivery| delivery.attempt == attempt),
            "all are attempt {attempt}: {deliveries:?}"
        );
        fixture.pass(10_000).await;
    }
}

pub(super) async fn receipts_are_fresh(fixture: Fixture) {
    fixture.store(&[msg("a"), msg("b"), msg("c")]).await;
    let mut seen = HashSet::new();
    for _ in 0..4 {
        for delivery in fixture.lease(10).await {
            let receipt = delivery.receipt;
            let loggable = !receipt.as_str().chars().any(char::is_control);
            assert!(loggable, "{receipt:?} has control characters");
            assert!(
                seen.insert(receipt.clone()),
                "receipt {receipt} is not fresh"
            );
        }
        fixture.pass(10_000).await;
    }
    assert_eq!(seen.len(), 12);
}

pub(super) async fn every_redelivery_counts_except_after_a_release(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let first = fixture.lease_one().await;
    assert!(fixture.change(&first.receipt, nack(0)).await.is_applied());
    let second = fixture.lease_one().await;
    assert!(
        fixture
            .change(&second.receipt, LeaseAction::Release)
            .await
            .is_applied()
    );
    let again = fixture.lease_one().await;
    assert!(fixture.change(&again.receipt, extend(1)).await.is_applied());
    fixture.pass(1).await;
    let third = fixture.lease_one().await;
    let attempts = [first.attempt, second.attempt, again.attempt, third.attempt];
    assert_eq!(attempts, [1, 2, 2, 3]);
}

pub(super) async fn never_more_than_asked(fixture: Fixture) {
    let messages: Vec<_> = (0..10).map(|n| msg(&format!("m{n}"))).collect();
    fixture.store(&messages).await;
    let mut seen = HashSet::new();
    for asked in [1, 3, 2, 4] {
        let deliveries = fixture.lease(asked).await;
        assert_eq!(deliveries.len(), asked);
        assert!(
            deliveries
                .iter()
                .all(|delivery| seen.insert(delivery.id.clone())),
            "one of them was leased before: {deliveries:?}"
        );
    }
    fixture.expect_none_ready("all ten are leased").await;
}

pub(super) async fn everything_ready_up_to_what_was_asked(fixture: Fixture) {
    let hidden = msg("delayed").with_delay(Duration::from_secs(5));
    fixture.store(&[msg("a"), hidden, msg("b"), msg("c")]).await;
    let a = fixture.lease(1).await;
    assert_eq!(fixture.lease(100).await.len(), 2, "two are ready");
    assert!(fixture.change(&a[0].receipt, nack(0)).await.is_applied());
    assert_eq!(fixture.lease(100).await.len(), 1);
}

pub(super) async fn in_order_of_ready_time(fixture: Fixture) {
    // The order of the ids differs from every order below.
    fixture
        .store(&[msg("three").with_delay(Duration::from_millis(30))])
        .await;
    fixture
        .store(&[msg("four").with_delay(Duration::from_millis(40))])
        .await;
    fixture.pass(10).await;
    fixture.store(&[msg("one")]).await;
    let first = fixture.lease_for(1, 25).await;
    fixture.pass(5).await;
    fixture.store(&[msg("two")]).await;
    fixture.pass(1000).await;
    assert_eq!(ids(&first), ["one"]);
    // "one" became ready again at 35 ms, when its lease expired.
    assert_eq!(ids(&fixture.lease(3).await), ["two", "three", "one"]);
    assert_eq!(ids(&fixture.lease(2).await), ["four"]);
}

pub(super) async fn a_batch_of_the_largest_size(fixture: Fixture) {
    let most = fixture.backend().limits().max_batch.get().min(1000);
    let messages: Vec<_> = (0..most + 1).map(|n| msg(&format!("m{n}"))).collect();
    fixture.store(&messages[..most]).await;
    fixture.store(&messages[most..]).await;
    let deliveries = fixture.lease(most).await.into_iter();
    let changes: Vec<_> = deliveries
        .map(|delivery| LeaseChange::nack(delivery.receipt, Duration::ZERO))
        .collect();
    assert_eq!(fixture.change_all(&changes).await, vec![Applied; most]);
    assert_eq!(fixture.stats().await.ready, most as u64 + 1);
    let receipts = receipts(fixture.lease(most).await);
    assert_eq!(fixture.ack_all(&receipts).await, vec![Applied; most]);
    assert_eq!(fixture.lease(most).await.len(), 1);
    assert_eq!(fixture.stats().await.leased, 1, "the others are gone");
}

/// The largest batch may be more than a store looks at in one step.
pub(super) async fn a_large_batch_is_in_order_of_ready_time(fixture: Fixture) {
    let most = fixture.backend().limits().max_batch.get().min(1000);
    // Each of these orders has each number once, because the factors are primes and larger.
    let shuffled = |n: usize, factor: usize| (n * factor + 3) % most;
    let millis = |n: usize| Duration::from_millis(n as u64);
    let id = |place: usize| format!("m{place}");
    let messages = (0..most).map(|n| {
        let place = shuffled(n, 10_007);
        msg(&id(place)).with_delay(millis(place))
    });
    fixture.store(&messages.collect::<Vec<_>>()).await;
    fixture.pass(most as u64).await;
    let deliveries = fixture.lease_for(most, 3_600_000).await;
    let expected: Vec<_> = (0..most).map(id).collect();
    assert_eq!(ids(&deliveries), expected);

    // Now another order, in tens: each call takes the right ones.
    let mut expected = vec![String::new(); most];
    let nack = |(n, delivery): (usize, Delivery)| {
        let place = shuffled(n, 20_011);
        expected[place] = delivery.id.to_string();
        LeaseChange::nack(delivery.receipt, millis(place))
    };
    let changes: Vec<_> = deliveries.into_iter().enumerate().map(nack).collect();
    assert_eq!(fixture.change_all(&changes).await, vec![Applied; most]);
    fixture.pass(most as u64).await;
    let (in_tens, rest) = expected.split_at(most.min(200));
    for ten in in_tens.chunks(10) {
        assert_eq!(ids(&fixture.lease(10).await), ten);
    }
    assert_eq!(ids(&fixture.lease(most).await), rest);
}

pub(super) async fn a_lease_of_zero_returns_nothing(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    assert!(fixture.lease(0).await.is_empty());
    assert_eq!(fixture.stats().await.ready, 1);
}
