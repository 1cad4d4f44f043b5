//! A visibility timeout of 0 and an extension by 0: the message is leased, and ready again at once.

use std::time::Duration;

use queue_api::{
    Delivery, LeaseChange,
    LeaseOutcome::{Applied, Lost},
    QueueStats,
};

use crate::fixture::{Fixture, extend, msg, receipts, sorted_ids};

/// That many messages are ready, and nothing else is in the queue.
async fn expect_ready(fixture: &Fixture, ready: u64) {
    let stats = fixture.stats().await.with_oldest_ready(None);
    assert_eq!(stats, QueueStats::default().with_ready(ready));
}

fn expect_attempt(fixture: &Fixture, delivery: &Delivery, attempt: u32) {
    assert_eq!(delivery.attempt, attempt);
    assert_eq!(delivery.visibility_timeout, Duration::ZERO);
    assert_eq!(delivery.lease_expires_at, fixture.now());
}

pub(super) async fn a_lease_of_no_time_counts_and_ends_at_once(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    for attempt in 1..=3 {
        let deliveries = fixture.lease_for(1, 0).await;
        assert_eq!(deliveries.len(), 1);
        expect_attempt(&fixture, &deliveries[0], attempt);
        expect_ready(&fixture, 1).await;
        fixture.pass(u64::from(attempt) - 1).await;
    }
    assert_eq!(fixture.lease_one().await.attempt, 4);
    fixture
        .expect_none_ready("the call set no timeout, so the message's own applies")
        .await;
}

pub(super) async fn a_message_may_have_a_timeout_of_zero(fixture: Fixture) {
    let message = msg("m").with_visibility_timeout(Duration::ZERO);
    fixture.store(&[message]).await;
    for attempt in 1..=3 {
        expect_attempt(&fixture, &fixture.lease_one().await, attempt);
        expect_ready(&fixture, 1).await;
    }
    assert_eq!(fixture.lease_for(1, 1000).await.len(), 1);
    fixture
        .expect_none_ready("the call's timeout overrides the message's")
        .await;
}

pub(super) async fn a_call_meets_each_message_once(fixture: Fixture) {
    // A call that makes a dead letter goes on to other messages.
    for (exhausted, asked) in [("x", 3), ("y", 10)] {
        let once = |id| msg(id).with_max_attempts(1);
        let dead = fixture.stats().await.dead;
        fixture.store(&[once(exhausted)]).await;
        assert_eq!(fixture.lease_for(10, 0).await.len(), 1);
        fixture.pass(1).await;
        fixture.store(&["a", "b", "c"].map(once)).await;
        let leased = fixture.lease_for(asked, 0).await;
        assert_eq!(sorted_ids(&leased), ["a", "b", "c"]);
        assert_eq!(fixture.stats().await.dead, dead + 1);
        assert_eq!(fixture.ack_all(&receipts(leased)).await, [Applied; 3]);
    }
    let ids = ["d", "e", "f"];
    let own = |id| msg(id).with_visibility_timeout(Duration::ZERO);
    fixture.store(&ids.map(own)).await;
    for attempt in 1..=2 {
        let deliveries = fixture.lease(10).await;
        assert_eq!(sorted_ids(&deliveries), ids, "more were asked for");
        for delivery in &deliveries {
            expect_attempt(&fixture, delivery, attempt);
        }
    }
}

pub(super) async fn a_receipt_of_no_time_works_until_superseded(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let first = fixture.lease_for(1, 0).await.remove(0).receipt;
    fixture.pass(1000).await;
    let second = fixture.lease_for(1, 0).await.remove(0).receipt;
    assert_eq!(fixture.ack(&first).await, Lost);
    assert_eq!(fixture.change(&first, extend(0)).await, Lost);
    fixture.pass(1000).await;
    assert_eq!(fixture.change(&second, extend(1000)).await, Applied);
    fixture.expect_none_ready("the lease was extended").await;
    assert_eq!(fixture.ack(&second).await, Applied);
    assert_eq!(fixture.stats().await, QueueStats::default());
}

pub(super) async fn an_extension_by_zero_makes_the_message_ready(fixture: Fixture) {
    fixture.store(&[msg("m"), msg("n")]).await;
    let [m, n] = &receipts(fixture.lease(2).await)[..] else {
        panic!("two messages are ready");
    };
    fixture.pass(1000).await;
    assert_eq!(fixture.change(m, extend(0)).await, Applied);
    let stats = fixture.stats().await;
    assert_eq!((stats.ready, stats.leased), (1, 1));
    assert_eq!(stats.oldest_ready, Some(Duration::ZERO));
    // The receipt is not settled. The last extension counts.
    let changes = [(m, 1000), (n, 1000), (m, 0), (n, 0), (n, 500)]
        .map(|(of, millis)| LeaseChange::extend(of.clone(), Duration::from_millis(millis)));
    assert_eq!(fixture.change_all(&changes).await, [Applied; 5]);
    let again = fixture.lease_one().await;
    assert_eq!(again.attempt, 2, "the first attempt counts");
    fixture.expect_none_ready("both are leased").await;
    assert_eq!(fixture.change(m, extend(0)).await, Lost);
    assert_eq!(fixture.ack(m).await, Lost);
    assert_eq!(fixture.change(n, extend(0)).await, Applied);
    assert_eq!(fixture.ack(n).await, Applied);
    assert_eq!(fixture.ack(&again.receipt).await, Applied);
}

pub(super) async fn a_last_attempt_of_no_time_can_still_be_acked(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(1)]).await;
    let last = fixture.lease_for(10, 0).await.remove(0);
    expect_ready(&fixture, 1).await;
    assert_eq!(fixture.ack(&last.receipt).await, Applied);

    fixture.store(&[msg("n").with_max_attempts(2)]).await;
    for attempt in 1..=2 {
        let delivery = fixture.lease_for(10, 0).await.remove(0);
        expect_attempt(&fixture, &delivery, attempt);
    }
    expect_ready(&fixture, 1).await;
    fixture.expect_none_ready("its attempts are used up").await;
    assert_eq!(fixture.stats().await, QueueStats::default().with_dead(1));
}
