//! E4, L2, A5: delays and leases that end far in the future are exact, too.
//!
//! 24 bits of milliseconds, as a `f32` has them, are 4 hours; 31 and 32 bits are 25 and 50 days.

use std::time::Duration;

use queue_api::{LeaseAction, LeaseOptions, LeaseOutcome::Applied, QueueStats};

use crate::fixture::{Fixture, extend, msg, nack};

/// Odd times up to the limit, and the limit itself, in milliseconds.
fn far(limit: Duration) -> impl Iterator<Item = u64> {
    let a_year = Duration::from_secs(366 * 24 * 3600);
    let most = limit.min(a_year).as_millis() as u64;
    let odd = [(1 << 24) + 1, (1 << 31) + 1, (1 << 32) + 1];
    let odd = odd.into_iter().filter(move |millis| *millis < most - 1);
    odd.chain([most - 1, most])
}

/// The message that is hidden now is ready after this time, and not before.
async fn expect_ready_after(fixture: &Fixture, millis: u64) {
    fixture.pass(millis - 1).await;
    fixture
        .expect_none_ready(&format!("1 ms of {millis} ms is left"))
        .await;
    fixture.pass(1).await;
    let delivery = fixture.lease_one().await;
    assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
}

pub(super) async fn the_longest_delays_are_exact(fixture: Fixture) {
    for millis in far(fixture.backend().limits().max_delay) {
        let delay = Duration::from_millis(millis);
        let sent = fixture.now();
        fixture.store(&[msg("m").with_delay(delay)]).await;
        fixture.pass(millis - 1).await;
        let delayed = QueueStats::default().with_delayed(1);
        assert_eq!(fixture.stats().await, delayed, "1 ms of {delay:?} is left");
        fixture.pass(1).await;
        fixture.pass(millis).await;
        assert_eq!(fixture.stats().await.oldest_ready, Some(delay));
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.enqueued_at, sent);
        assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
    }
}

pub(super) async fn the_longest_leases_are_exact(fixture: Fixture) {
    for millis in far(fixture.backend().limits().max_visibility_timeout) {
        let timeout = Duration::from_millis(millis);
        let own = msg("own").with_visibility_timeout(timeout);
        for (message, options) in [
            (own, LeaseOptions::new(1)),
            (
                msg("override"),
                LeaseOptions::new(1).with_visibility_timeout(timeout),
            ),
        ] {
            fixture.store(&[message]).await;
            let leased = fixture.lease_with(&options).await;
            assert_eq!(leased.len(), 1);
            assert_eq!(leased[0].visibility_timeout, timeout);
            assert_eq!(leased[0].lease_expires_at, fixture.now() + timeout);
            expect_ready_after(&fixture, millis).await;
        }
    }
}

pub(super) async fn the_longest_changes_are_exact(fixture: Fixture) {
    let limits = fixture.backend().limits();
    let extensions = far(limits.max_visibility_timeout).map(|millis| (millis, extend(millis)));
    let nacks = far(limits.max_delay).map(|millis| (millis, nack(millis)));
    for (millis, action) in extensions.chain(nacks) {
        fixture.store(&[msg("m")]).await;
        let receipt = fixture.lease_one().await.receipt;
        assert_eq!(fixture.change(&receipt, action).await, Applied);
        expect_ready_after(&fixture, millis).await;
    }
}

/// The limits hold for a duration, not for its milliseconds.
pub(super) async fn a_finer_duration_far_out_is_rounded_up(fixture: Fixture) {
    let limits = fixture.backend().limits();
    let fine = |limit: Duration| limit.min(Duration::from_secs(7200)) - Duration::from_nanos(1);
    let (delay, by) = (fine(limits.max_delay), fine(limits.max_visibility_timeout));
    for action in [LeaseAction::Nack { delay }, LeaseAction::Extend(by)] {
        fixture.store(&[msg("m")]).await;
        let receipt = fixture.lease_one().await.receipt;
        assert_eq!(fixture.change(&receipt, action).await, Applied);
        expect_ready_after(&fixture, 7_200_000).await;
    }
}
