//! L1 to L4: what a lease promises.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use queue_api::{
    LeaseAction, LeaseChange, LeaseOptions,
    LeaseOutcome::{Applied, Lost},
};

use crate::bed::{Bed, extend, ids, msg, nack, sorted_ids};

pub(super) async fn a_leased_message_is_given_to_nobody_else(bed: Bed) {
    bed.store(&[msg("a"), msg("b")]).await;
    assert_eq!(sorted_ids(&bed.lease(10).await), ["a", "b"]);
    for _ in 0..3 {
        bed.expect_none_ready("both are leased").await;
        bed.reconnect()
            .await
            .expect_none_ready("both are leased, to whoever asks")
            .await;
        bed.pass(3000).await;
    }
}

pub(super) async fn an_extended_lease_stays_exclusive(bed: Bed) {
    bed.store(&[msg("m")]).await;
    let delivery = bed.lease_one().await;
    for _ in 0..5 {
        bed.pass(9999).await;
        let outcome = bed.change(&delivery.receipt, extend(10_000)).await;
        assert_eq!(outcome, Applied);
    }
    bed.pass(9999).await;
    bed.expect_none_ready("the lease was extended").await;
    assert_eq!(bed.ack(&delivery.receipt).await, Applied);
}

pub(super) async fn a_lease_runs_out_to_the_tick(bed: Bed) {
    bed.store(&[msg("m")]).await;
    bed.lease_one().await;
    bed.pass(9999).await;
    bed.expect_none_ready("one tick of the lease is left").await;
    assert_eq!(bed.stats().await.leased, 1);
    bed.pass(1).await;
    assert_eq!(bed.stats().await.ready, 1, "an expired lease is no lease");
    assert_eq!(bed.lease_one().await.attempt, 2);
}

pub(super) async fn each_message_has_its_own_timeout(bed: Bed) {
    let lasting = |id: &str, secs| msg(id).with_visibility_timeout(Duration::from_secs(secs));
    bed.store(&[
        lasting("thirty", 30),
        lasting("ten", 10),
        lasting("twenty", 20),
    ])
    .await;
    let start = bed.now();
    let mut deliveries = bed.lease(10).await;
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
        bed.pass(9999).await;
        bed.expect_none_ready("the next lease has a tick left")
            .await;
        bed.pass(1).await;
        assert_eq!(ids(&bed.lease_for(10, 60_000).await), [expected]);
    }
}

pub(super) async fn the_lease_call_overrides_the_timeout(bed: Bed) {
    let longer = msg("longer").with_visibility_timeout(Duration::from_secs(60));
    let shorter = msg("shorter").with_visibility_timeout(Duration::from_secs(1));
    bed.store(&[longer, shorter]).await;
    let deliveries = bed.lease_for(10, 7000).await;
    let timeout = Duration::from_secs(7);
    for delivery in &deliveries {
        assert_eq!(delivery.visibility_timeout, timeout);
        assert_eq!(delivery.lease_expires_at, bed.now() + timeout);
    }
    assert_eq!(deliveries.len(), 2);
    bed.pass(6999).await;
    bed.expect_none_ready("the override has a tick left").await;
    bed.pass(1).await;
    assert_eq!(sorted_ids(&bed.lease(10).await), ["longer", "shorter"]);
}

pub(super) async fn the_override_ends_with_its_lease(bed: Bed) {
    bed.store(&[msg("m")]).await;
    bed.lease_for(1, 1000).await;
    bed.pass(1000).await;
    let second = bed.lease_one().await;
    assert_eq!(second.lease_expires_at, bed.now() + Duration::from_secs(10));
}

pub(super) async fn a_finer_duration_is_rounded_up(bed: Bed) {
    let fine = Duration::from_micros(1500);
    let lasts_two_ticks = async |what: &str| {
        bed.pass(1).await;
        bed.expect_none_ready(what).await;
        bed.pass(1).await;
    };
    let message = msg("m").with_delay(fine).with_visibility_timeout(fine);
    bed.store(&[message]).await;
    lasts_two_ticks("half a tick of the delay is left").await;
    let delivery = bed.lease_one().await;
    let expiry = bed.now() + Duration::from_millis(2);
    assert_eq!(delivery.lease_expires_at, expiry);
    lasts_two_ticks("half a tick of the lease is left").await;
    let options = LeaseOptions::new(1).with_visibility_timeout(fine);
    let leased = bed.backend().lease(&bed.name, &options).await;
    assert_eq!(leased.expect("lease succeeds").len(), 1);
    lasts_two_ticks("half a tick of the override is left").await;
    for action in [LeaseAction::Extend(fine), LeaseAction::Nack { delay: fine }] {
        let delivery = bed.lease_one().await;
        bed.change(&delivery.receipt, action.clone()).await;
        lasts_two_ticks(&format!("half a tick of {action:?} is left")).await;
    }
    assert_eq!(bed.lease_one().await.attempt, 5);
}

pub(super) async fn a_lease_runs_out_in_real_time(bed: Bed) {
    bed.store(&[msg("m")]).await;
    let first = bed.lease_for(1, 1500).await;
    let started = Instant::now();
    let early = bed.lease_for(10, 1).await;
    // On a machine that was busy for so long, it may be visible again by now.
    assert!(
        early.is_empty() || started.elapsed().as_millis() >= 1400,
        "it came again while its lease ran"
    );
    bed.pass(1600).await;
    let second = bed.lease_one().await;
    assert!(second.attempt > first[0].attempt);
    assert_eq!(bed.ack(&first[0].receipt).await, Lost);
    assert_eq!(bed.ack(&second.receipt).await, Applied);
}

pub(super) async fn attempts_count_from_one(bed: Bed) {
    bed.store(&[msg("m"), msg("other")]).await;
    for attempt in 1..=5 {
        let deliveries = bed.lease(10).await;
        assert_eq!(sorted_ids(&deliveries), ["m", "other"]);
        assert!(
            deliveries
                .iter()
                .all(|delivery| delivery.attempt == attempt),
            "this is attempt {attempt}: {deliveries:?}"
        );
        bed.pass(10_000).await;
    }
}

pub(super) async fn receipts_are_fresh(bed: Bed) {
    bed.store(&[msg("a"), msg("b"), msg("c")]).await;
    let mut seen = HashSet::new();
    for _ in 0..4 {
        for delivery in bed.lease(10).await {
            let receipt = delivery.receipt;
            let loggable = !receipt.as_str().chars().any(char::is_control);
            assert!(loggable, "{receipt:?} has control characters");
            assert!(seen.insert(receipt.clone()), "{receipt} came twice");
        }
        bed.pass(10_000).await;
    }
    assert_eq!(seen.len(), 12);
}

pub(super) async fn every_way_back_counts_but_return(bed: Bed) {
    bed.store(&[msg("m")]).await;
    let first = bed.lease_one().await;
    bed.change(&first.receipt, nack(0)).await;
    let second = bed.lease_one().await;
    bed.change(&second.receipt, LeaseAction::Return).await;
    let again = bed.lease_one().await;
    bed.change(&again.receipt, extend(1)).await;
    bed.pass(1).await;
    let third = bed.lease_one().await;
    let attempts = [first.attempt, second.attempt, again.attempt, third.attempt];
    assert_eq!(attempts, [1, 2, 2, 3]);
}

pub(super) async fn never_more_than_asked(bed: Bed) {
    let messages: Vec<_> = (0..10).map(|n| msg(&format!("m{n}"))).collect();
    bed.store(&messages).await;
    let mut seen = HashSet::new();
    for asked in [1, 3, 2, 4] {
        let deliveries = bed.lease(asked).await;
        assert_eq!(deliveries.len(), asked);
        assert!(
            deliveries
                .iter()
                .all(|delivery| seen.insert(delivery.id.clone())),
            "one of them was given before: {deliveries:?}"
        );
    }
    bed.expect_none_ready("all ten are leased").await;
}

pub(super) async fn exactly_what_is_ready(bed: Bed) {
    let hidden = msg("delayed").with_delay(Duration::from_secs(5));
    bed.store(&[msg("a"), hidden, msg("b"), msg("c")]).await;
    let a = bed.lease(1).await;
    assert_eq!(
        bed.lease(100).await.len(),
        2,
        "two are ready, whatever was asked for"
    );
    bed.change(&a[0].receipt, nack(0)).await;
    assert_eq!(bed.lease(100).await.len(), 1);
}

pub(super) async fn in_order_of_ready_time(bed: Bed) {
    // Named so that the order of their ids is none of those below.
    bed.store(&[msg("three").with_delay(Duration::from_millis(30))])
        .await;
    bed.store(&[msg("four").with_delay(Duration::from_millis(40))])
        .await;
    bed.pass(10).await;
    bed.store(&[msg("one")]).await;
    let first = bed.lease_for(1, 25).await;
    bed.pass(5).await;
    bed.store(&[msg("two")]).await;
    bed.pass(1000).await;
    assert_eq!(ids(&first), ["one"]);
    // "one" became ready again at 35, when its lease ran out.
    assert_eq!(ids(&bed.lease(3).await), ["two", "three", "one"]);
    assert_eq!(ids(&bed.lease(2).await), ["four"]);
}

pub(super) async fn a_batch_of_the_largest_size(bed: Bed) {
    let most = bed.backend().limits().max_batch.min(1000);
    let messages: Vec<_> = (0..most + 1).map(|n| msg(&format!("m{n}"))).collect();
    bed.store(&messages[..most]).await;
    bed.store(&messages[most..]).await;
    let deliveries = bed.lease(most).await.into_iter();
    let changes: Vec<_> = deliveries
        .map(|delivery| LeaseChange::nack(delivery.receipt, Duration::ZERO))
        .collect();
    assert_eq!(bed.change_all(&changes).await, vec![Applied; most]);
    assert_eq!(bed.stats().await.ready, most as u64 + 1);
    let deliveries = bed.lease(most).await.into_iter();
    let receipts: Vec<_> = deliveries.map(|delivery| delivery.receipt).collect();
    assert_eq!(bed.ack_all(&receipts).await, vec![Applied; most]);
    assert_eq!(bed.lease(most).await.len(), 1);
    assert_eq!(bed.stats().await.leased, 1, "the others are gone");
}

pub(super) async fn nothing_asked_for_is_nothing_given(bed: Bed) {
    bed.store(&[msg("m")]).await;
    assert!(bed.lease(0).await.is_empty());
    assert_eq!(bed.stats().await.ready, 1);
}
