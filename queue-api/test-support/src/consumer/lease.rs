//! What the owner of a lease can do, and what happens if it does nothing.

use std::time::Duration;

use queue_api::{
    DeadReason, ErrorKind, LeaseOutcome, MAX_REASON_BYTES,
    consumer::{Lease, LeaseEnd, ListenOptions},
};

use super::fixture::{Fixture, HOUR, SECOND, VISIBILITY, msg};
use crate::{Fault, Operation};

pub(super) async fn it_shows_what_was_enqueued(fixture: Fixture) {
    let message = msg("m").with_header("lang", "en").with_max_attempts(7);
    fixture.store(&[message]).await;
    let (_listener, lease) = fixture.one_lease().await;
    assert_eq!(lease.id().as_str(), "m");
    assert_eq!(lease.payload(), "m");
    assert_eq!(lease.headers()["lang"], "en");
    assert_eq!((lease.attempt(), lease.max_attempts()), (1, 7));
    assert_eq!(lease.enqueued_at(), lease.delivery().enqueued_at);
    assert!(!lease.is_ended());
}

pub(super) async fn ack_ends_the_message(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    let ended = lease.ended();
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
    assert_eq!(ended.await, LeaseEnd::Settled);
    assert_eq!(fixture.stats().await, Default::default());
}

pub(super) async fn nack_delays_it(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (mut listener, lease) = fixture.one_lease().await;
    let outcome = lease.nack(SECOND * 50).await.unwrap();
    assert_eq!(outcome, LeaseOutcome::Applied);
    let again = listener.next().await.unwrap();
    assert_eq!((again.attempt(), fixture.seconds()), (2, 50));
}

pub(super) async fn dead_letter_keeps_the_reason(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    let outcome = lease.dead_letter("no such customer").await.unwrap();
    assert_eq!(outcome, LeaseOutcome::Applied);
    let dead = fixture.dead_letters().await;
    let reason = DeadReason::Rejected("no such customer".into());
    assert_eq!((dead.len(), &dead[0].reason), (1, &reason));
}

pub(super) async fn a_long_reason_is_cut(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    // The limit falls into the middle of a character of three bytes.
    let reason = "€".repeat(MAX_REASON_BYTES);
    assert!(lease.dead_letter(reason).await.unwrap().is_applied());
    let kept = fixture.dead_letters().await[0].reason.to_string();
    assert_eq!(kept, "€".repeat(MAX_REASON_BYTES / 3));
}

pub(super) async fn release_takes_the_attempt_back(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (mut listener, lease) = fixture.one_lease().await;
    assert_eq!(lease.release().await.unwrap(), LeaseOutcome::Applied);
    let again = listener.next().await.unwrap();
    assert_eq!((again.attempt(), fixture.seconds()), (1, 0));
}

pub(super) async fn a_dropped_lease_is_nacked_soon(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    for _ in 0..3 {
        drop(listener.next().await.unwrap());
    }
    for _ in 0..3 {
        assert_eq!(listener.next().await.unwrap().attempt(), 2);
    }
    assert_eq!(fixture.seconds(), Lease::RELEASE_DELAY.as_secs());
    assert_eq!(
        fixture.faulty.calls(Operation::Change)[0],
        3,
        "released together"
    );
}

pub(super) async fn it_may_be_dropped_on_a_thread_without_a_runtime(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let dropped = listener.next().await.unwrap();
    let acked = listener.next().await.unwrap();
    std::thread::spawn(move || {
        drop(dropped);
        acked.ack();
    })
    .join()
    .unwrap();
    fixture.run_tasks().await;
    let stats = fixture.stats().await;
    assert_eq!((stats.leased, stats.delayed, stats.ready), (0, 1, 0));
}

pub(super) async fn a_settlement_stands_when_its_future_is_dropped(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let first = listener.next().await.unwrap();
    let second = listener.next().await.unwrap();
    drop(first.ack());
    fixture.faulty.hold_answers(Operation::Ack);
    let answer = tokio::time::timeout(SECOND, second.ack()).await;
    assert!(answer.is_err(), "dropped while the call is in flight");
    fixture.faulty.release();
    fixture.advance(HOUR).await;
    assert_eq!(fixture.stats().await, Default::default(), "both are acked");
    assert!(
        fixture.faulty.calls(Operation::Change).is_empty(),
        "none was renewed or nacked"
    );
}

pub(super) async fn settlements_share_calls(fixture: Fixture) {
    fixture.store_many(50).await;
    let mut listener = fixture.listen(50);
    let mut answers = Vec::new();
    for n in 0..50 {
        let lease = listener.next().await.unwrap();
        answers.push(match n % 2 {
            0 => lease.ack(),
            _ => lease.nack(HOUR),
        });
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap(), LeaseOutcome::Applied);
    }
    assert_eq!(fixture.faulty.calls(Operation::Ack), [25]);
    assert_eq!(fixture.faulty.calls(Operation::Change), [25]);
    let stats = fixture.stats().await;
    assert_eq!((stats.leased, stats.delayed, stats.ready), (0, 25, 0));
}

pub(super) async fn an_invalid_settlement_is_refused_and_the_lease_nacked(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let wrong = listener.next().await.unwrap();
    let right = listener.next().await.unwrap();
    let error = right.extend(Duration::MAX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let (wrong, right) = (wrong.nack(Duration::MAX), right.nack(HOUR));
    assert_eq!(wrong.await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(right.await.unwrap(), LeaseOutcome::Applied);
    fixture.advance(Lease::RELEASE_DELAY).await;
    assert_eq!(fixture.lease_elsewhere().await.unwrap().attempt, 2);
}

pub(super) async fn settling_a_superseded_lease_says_lost(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let first = listener.next().await.unwrap();
    let second = listener.next().await.unwrap();
    fixture
        .faulty
        .fault(Operation::Change, Fault::Before(ErrorKind::Unavailable));
    fixture.advance(VISIBILITY).await;
    assert_eq!(
        fixture.attempts_elsewhere().await.len(),
        2,
        "other consumers have them"
    );
    fixture.faulty.clear();
    assert_eq!(first.ack().await.unwrap(), LeaseOutcome::Lost);
    assert_eq!(second.nack(SECOND).await.unwrap(), LeaseOutcome::Lost);
}

pub(super) async fn a_detached_lease_is_settled_by_its_receipt(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    let delivery = lease.detach();
    fixture.advance(VISIBILITY / 2).await;
    let outcome = fixture.elsewhere.ack(&delivery.receipt).await.unwrap();
    assert_eq!(outcome, LeaseOutcome::Applied);
    assert!(
        fixture.faulty.calls(Operation::Change).is_empty(),
        "it was not renewed"
    );
}

pub(super) async fn it_outlives_its_runtime_without_hanging(fixture: Fixture) {
    fixture.store_many(2).await;
    let (queue, clock) = (fixture.queue.clone(), fixture.clock.clone());
    let outside = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (mut listener, kept, acked) = runtime.block_on(async {
            let options = ListenOptions::new(2).with_clock(clock);
            let mut listener = queue.listen(options).unwrap();
            let kept = listener.next().await.unwrap();
            let acked = listener.next().await.unwrap();
            (listener, kept, acked)
        });
        drop(runtime);
        let again = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        again.block_on(async {
            assert!(kept.is_ended());
            assert_eq!(kept.ended().await, LeaseEnd::Unattended);
            let error = acked.ack().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(listener.next().await.is_none());
            listener.drain().await;
        });
    });
    // Do not block the runtime of this check: its clock advances only while it runs.
    while !outside.is_finished() {
        tokio::task::yield_now().await;
    }
    outside.join().unwrap();
}
