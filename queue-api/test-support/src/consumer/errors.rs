//! A store that fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use queue_api::{
    Clock, ErrorKind, LeaseOutcome, async_trait,
    consumer::{Context, Failure, Lease, LeaseEnd, ListenOptions, SettleFuture},
};

use super::{
    fixture::{Fixture, HOUR, SECOND, VISIBILITY, msg},
    worker::{acking_worker, counts, worker},
};
use crate::{Fault, Operation};

pub(super) async fn calls_to_a_failing_store_pause_longer_each_time(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    fixture.faulty.go_down();
    let reported = Arc::new(AtomicUsize::new(0));
    let counter = reported.clone();
    let options = ListenOptions::new(1).with_error_hook(move |error| {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let mut listener = fixture.listen_with(options);
    let nothing = tokio::time::timeout(HOUR, listener.next()).await;
    assert!(nothing.is_err());
    let asked = fixture.faulty.calls(Operation::Lease).len();
    assert!((360..800).contains(&asked), "{asked} calls in an hour");
    assert_eq!(
        reported.load(Ordering::Relaxed),
        asked,
        "each error is reported"
    );

    fixture.faulty.clear();
    let before = fixture.seconds();
    assert!(listener.next().await.is_some());
    assert!(fixture.seconds() <= before + 10, "it recovers by itself");
}

pub(super) async fn it_recovers_when_a_denial_ends(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    fixture
        .faulty
        .fault(Operation::Lease, Fault::Before(ErrorKind::Denied));
    let mut listener = fixture.listen(1);
    let nothing = tokio::time::timeout(SECOND * 4, listener.next()).await;
    assert!(nothing.is_err());
    assert_eq!(
        fixture.faulty.calls(Operation::Lease).len(),
        1,
        "a long pause at once"
    );
    fixture.faulty.clear();
    assert!(listener.next().await.is_some());
    assert!(fixture.seconds() <= 10);
}

pub(super) async fn a_failing_wait_is_survived(fixture: Fixture) {
    fixture
        .faulty
        .fault(Operation::Wait, Fault::Before(ErrorKind::Unavailable));
    let mut listener = fixture.listen(1);
    let nothing = tokio::time::timeout(HOUR, listener.next()).await;
    assert!(nothing.is_err());
    let asked = fixture.faulty.calls(Operation::Wait).len();
    assert!(asked < 3600 * 10, "{asked} waits in an hour");
    fixture.store(&[msg("m")]).await;
    assert!(listener.next().await.is_some());
}

pub(super) async fn a_settlement_is_repeated_while_the_lease_lasts(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let first = listener.next().await.unwrap();
    let second = listener.next().await.unwrap();
    fixture.faulty.go_down();
    let (ack, nack) = (first.ack(), second.nack(HOUR));
    fixture.advance(VISIBILITY / 2).await;
    fixture.faulty.clear();
    assert_eq!(ack.await.unwrap(), LeaseOutcome::Applied);
    assert_eq!(nack.await.unwrap(), LeaseOutcome::Applied);
    assert!(fixture.seconds() < VISIBILITY.as_secs());
    assert_eq!(fixture.stats().await.delayed, 1);
}

/// Something that can be done with a lease, and its calls.
type Settle = (Operation, fn(Lease) -> SettleFuture);

const SETTLEMENTS: [Settle; 4] = [
    (Operation::Ack, |lease| lease.ack()),
    (Operation::Change, |lease| lease.nack(HOUR)),
    (Operation::Change, |lease| lease.release()),
    (Operation::Change, |lease| lease.dead_letter("by the test")),
];

/// Who settled it is unknown: the failed call, a purge, or another process.
pub(super) async fn a_settlement_that_a_repeat_finds_lost_is_the_error(fixture: Fixture) {
    for took_effect in [true, false] {
        for (operation, settle) in SETTLEMENTS {
            fixture.store(&[msg("m")]).await;
            let (listener, lease) = fixture.one_lease().await;
            let kind = ErrorKind::Unavailable;
            let fault = match took_effect {
                true => Fault::After(kind),
                false => Fault::Before(kind),
            };
            fixture.faulty.fault_once(operation, fault);
            let settled = settle(lease);
            // Past the failed call, and before its repeat.
            fixture.run_tasks().await;
            fixture.purge().await;
            let error = settled.await.unwrap_err();
            assert_eq!(
                error.kind(),
                kind,
                "{operation:?}, took effect: {took_effect}"
            );
            assert!(error.to_string().contains("a fault of the test"), "{error}");
            listener.drain().await;
        }
    }
}

pub(super) async fn a_lost_answer_of_an_extension_is_not_a_lost_lease(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    fixture
        .faulty
        .fault_once(Operation::Change, Fault::After(ErrorKind::TimedOut));
    assert!(lease.extend(VISIBILITY).await.unwrap().is_applied());
    assert_eq!(fixture.stats().await.leased, 1);
}

pub(super) async fn a_worker_counts_a_settlement_that_a_repeat_finds_lost_as_unsettled(
    fixture: Fixture,
) {
    fixture.store_many(1).await;
    fixture
        .faulty
        .fault_once(Operation::Ack, Fault::Before(ErrorKind::Unavailable));
    let purged = fixture.clone();
    let worker = worker(&fixture, move |_: String, _: Context| {
        let fixture = purged.clone();
        async move {
            fixture.purge().await;
            Ok::<_, Failure>(())
        }
    });
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [0, 0, 0, 0, 0, 1]);
}

pub(super) async fn a_settlement_that_keeps_failing_is_an_error(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (mut listener, lease) = fixture.one_lease().await;
    fixture.faulty.go_down();
    let error = lease.ack().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let gave_up = fixture.seconds();
    assert!((30..=36).contains(&gave_up), "{gave_up}");
    fixture.faulty.clear();
    assert_eq!(listener.next().await.unwrap().attempt(), 2);
}

/// Counts sleeps. Virtual time does not advance during a busy loop, so a busy loop is stopped.
#[derive(Debug)]
struct CountingClock {
    clock: Arc<dyn Clock>,
    sleeps: AtomicUsize,
}

impl CountingClock {
    fn new(fixture: &Fixture) -> Arc<Self> {
        Arc::new(Self {
            clock: fixture.clock.clone(),
            sleeps: AtomicUsize::new(0),
        })
    }

    fn sleeps(&self) -> usize {
        self.sleeps.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Clock for CountingClock {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        let sleeps = self.sleeps.fetch_add(1, Ordering::Relaxed);
        if sleeps >= 10_000 {
            std::future::pending::<()>().await;
        }
        self.clock.sleep_until(deadline).await;
    }
}

/// Stores a message whose lease expires before its lease call returns, and one with a long lease.
async fn store_expiring_and_other(fixture: &Fixture) {
    let expiring = msg("expiring").with_visibility_timeout(Duration::from_millis(200));
    fixture
        .store(&[expiring, msg("other").with_visibility_timeout(HOUR)])
        .await;
    fixture.faulty.hold_answers(Operation::Lease);
}

pub(super) async fn an_expired_claim_causes_no_busy_loop(fixture: Fixture) {
    store_expiring_and_other(&fixture).await;
    let clock = CountingClock::new(&fixture);
    let options = ListenOptions::new(2).with_clock(clock.clone());
    let mut listener = fixture.queue.listen(options).unwrap();
    let next = tokio::spawn(async move { (listener.next().await.unwrap(), listener) });
    fixture.advance(SECOND).await;
    fixture.faulty.release();
    let (lease, _listener) = next.await.unwrap();
    assert_eq!(lease.payload(), "other");
    // The stream is not polled again.
    fixture.advance(SECOND * 60).await;
    assert!(clock.sleeps() < 100, "{}", clock.sleeps());
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn an_expired_claim_without_room_does_not_either(fixture: Fixture) {
    store_expiring_and_other(&fixture).await;
    fixture.faulty.hold_answers(Operation::Change);
    let clock = CountingClock::new(&fixture);
    let (waits, stop) = (fixture.clock.clone(), fixture.clock.now() + SECOND * 60);
    let worker = worker(&fixture, move |_: String, _: Context| {
        let clock = waits.clone();
        async move {
            clock.sleep_until(clock.now() + SECOND).await;
            Ok::<_, Failure>(())
        }
    });
    let worker = worker.with_listen_options(ListenOptions::new(2).with_clock(clock.clone()));
    let shutdown = fixture.clock.clone();
    let running = tokio::spawn(async move { worker.run(shutdown.sleep_until(stop)).await });
    fixture.advance(SECOND).await;
    fixture.faulty.release_answers(Operation::Lease);
    // The release takes up the room of the next claim.
    fixture.advance(SECOND / 10).await;
    fixture.faulty.release();
    assert_eq!(counts(running.await.unwrap().unwrap()), [2, 0, 0, 0, 0, 0]);
    assert!(clock.sleeps() < 1000, "{}", clock.sleeps());
}

pub(super) async fn a_settlement_that_hangs_ends_with_its_lease(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let lease = listener.next().await.unwrap();
    let other = listener.next().await.unwrap();
    fixture.faulty.hold_answers(Operation::Ack);
    let error = lease.ack().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(
        fixture.seconds(),
        VISIBILITY.as_secs(),
        "then and not before"
    );
    fixture.faulty.release();
    assert_eq!(other.ack().await.unwrap(), LeaseOutcome::Applied);

    fixture.store(&[msg("m")]).await;
    let lease = listener.next().await.unwrap();
    fixture.faulty.hold_answers(Operation::Change);
    assert_eq!(lease.ended().await, LeaseEnd::Expired);
    fixture.faulty.release();
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

/// However long its lease lasts.
pub(super) async fn a_settlement_that_hangs_holds_up_no_others_for_long(fixture: Fixture) {
    fixture.store_many(1).await;
    let mut listener = fixture.listen(2);
    let lease = listener.next().await.unwrap();
    let extended = lease.extend(HOUR * 9).await;
    assert_eq!(extended.unwrap(), LeaseOutcome::Applied);
    fixture.faulty.hold_answers(Operation::Ack);
    let hanging = tokio::spawn(lease.ack());
    fixture.advance(SECOND * 75).await;
    let calls = fixture.faulty.calls(Operation::Ack).len();
    assert!(calls > 1, "it is given up and repeated: {calls}");
    fixture.faulty.clear();
    fixture.faulty.release_answers(Operation::Ack);
    // The first call took effect, so the repeat cannot tell.
    let error = hanging.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::TimedOut, "ack")
    );
    fixture.store(&[msg("m")]).await;
    let lease = listener.next().await.unwrap();
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn a_worker_stops_although_its_settlement_hangs(fixture: Fixture) {
    fixture.store_many(1).await;
    fixture.faulty.hold_answers(Operation::Ack);
    let worker = acking_worker(&fixture);
    let stop = fixture.clock.now() + SECOND * 5;
    let report = worker.run(fixture.clock.sleep_until(stop)).await.unwrap();
    assert_eq!(counts(report), [0, 0, 0, 0, 0, 1]);
    assert_eq!(fixture.seconds(), VISIBILITY.as_secs());
}

pub(super) async fn a_refused_settlement_fails_alone(fixture: Fixture) {
    for (operation, settle) in SETTLEMENTS {
        for kind in [
            ErrorKind::Internal,
            ErrorKind::InvalidInput,
            ErrorKind::Codec,
        ] {
            fixture.store_many(5).await;
            let mut listener = fixture.listen(5);
            let leases = listener.next_batch(5).await.unwrap();
            fixture.faulty.refuse(&leases[2].delivery().receipt, kind);
            let before = fixture.faulty.calls(operation).len();
            let settled: Vec<_> = leases.into_iter().map(settle).collect();
            for (n, settled) in settled.into_iter().enumerate() {
                let outcome = settled.await.map_err(|error| error.kind());
                let expected = match n {
                    2 => Err(kind),
                    _ => Ok(LeaseOutcome::Applied),
                };
                assert_eq!(outcome, expected, "{operation:?} of lease {n}");
            }
            let calls = fixture.faulty.calls(operation);
            assert_eq!(calls[before..], [5, 1, 1, 1, 1, 1]);
            assert_eq!(fixture.stats().await.leased, 1, "the refused one");
            listener.drain().await;
            fixture.faulty.clear();
            fixture.purge().await;
        }
    }
}

pub(super) async fn a_settlement_of_a_failed_batch_that_a_repeat_finds_lost_is_the_error(
    fixture: Fixture,
) {
    for (operation, settle) in SETTLEMENTS {
        fixture.store_many(2).await;
        let mut listener = fixture.listen(2);
        let leases = listener.next_batch(2).await.unwrap();
        let lost_answer = Fault::After(ErrorKind::Internal);
        fixture.faulty.fault_once(operation, lost_answer);
        let settled: Vec<_> = leases.into_iter().map(settle).collect();
        for settled in settled {
            let error = settled.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal, "{operation:?}");
        }
        listener.drain().await;
        fixture.purge().await;
    }
}

pub(super) async fn settlements_repeated_alone_do_not_hang_one_after_another(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let leases = listener.next_batch(3).await.unwrap();
    let refused = Fault::Before(ErrorKind::Internal);
    fixture.faulty.fault_once(Operation::Ack, refused);
    fixture.faulty.fault(Operation::Ack, Fault::Hangs);
    let acks: Vec<_> = leases.into_iter().map(Lease::ack).collect();
    for ack in acks {
        assert_eq!(ack.await.unwrap_err().kind(), ErrorKind::TimedOut);
    }
    assert_eq!(fixture.faulty.calls(Operation::Ack), [3, 1]);
    assert!(fixture.seconds() <= VISIBILITY.as_secs() + 1);
}
