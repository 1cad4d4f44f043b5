//! When leases are renewed, and when they end.

use std::{
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use queue_api::{
    Clock, ErrorKind, LeaseOutcome, NewMessage, Purge, async_trait,
    consumer::{Context, Failure, Lease, LeaseEnd, ListenOptions},
};

use super::{
    fixture::{Fixture, HOUR, SECOND, VISIBILITY, msg},
    worker::{counts, worker},
};
use crate::{Fault, Operation};

pub(super) async fn a_long_handler_keeps_its_message(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    for _ in 0..50 {
        fixture.advance(VISIBILITY).await;
        assert!(fixture.lease_elsewhere().await.is_none());
    }
    assert!(!lease.is_ended());
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn leases_are_renewed_in_one_call(fixture: Fixture) {
    fixture.store_many(64).await;
    let mut listener = fixture.listen(64);
    let mut leases = Vec::new();
    for _ in 0..64 {
        leases.push(listener.next().await.unwrap());
    }
    fixture.advance(VISIBILITY * 10).await;
    let calls = fixture.faulty.calls(Operation::Change);
    assert!(calls.iter().all(|size| *size == 64), "{calls:?}");
    assert!((19..=21).contains(&calls.len()), "{calls:?}");
}

pub(super) async fn leases_of_different_age_end_up_renewed_together(fixture: Fixture) {
    let mut listener = fixture.listen(4);
    let mut leases = Vec::new();
    for id in ["a", "b", "c", "d"] {
        fixture.store(&[msg(id)]).await;
        leases.push(listener.next().await.unwrap());
        fixture.advance(SECOND).await;
    }
    fixture.advance(VISIBILITY * 10).await;
    let calls = fixture.faulty.calls(Operation::Change);
    assert!(calls.iter().all(|size| *size == 4), "{calls:?}");
}

pub(super) async fn it_goes_on_while_the_stream_is_not_polled(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let lease = listener.next().await.unwrap();
    fixture.advance(VISIBILITY * 20).await;
    assert_eq!(
        fixture.stats().await.leased,
        3,
        "two are still in the inbox"
    );
    assert!(!lease.is_ended());
    let second = listener.next().await.unwrap();
    assert_eq!(second.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn it_survives_a_failing_store(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    for _ in 0..10 {
        fixture.faulty.go_down();
        fixture.advance(VISIBILITY / 3).await;
        fixture.faulty.clear();
        fixture.advance(VISIBILITY).await;
        assert!(fixture.lease_elsewhere().await.is_none());
    }
    assert!(!lease.is_ended());
}

pub(super) async fn a_lease_that_cannot_be_renewed_expires(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    fixture.faulty.go_down();
    assert_eq!(lease.ended().await, LeaseEnd::Expired);
    assert_eq!(
        fixture.seconds(),
        VISIBILITY.as_secs(),
        "then and not before"
    );
    assert!(lease.is_ended());
    fixture.faulty.clear();
    fixture.run_tasks().await;
    let extended = lease.extend(VISIBILITY).await.unwrap();
    assert_eq!(
        extended,
        LeaseOutcome::Applied,
        "a late extension works if no other consumer has the message"
    );
    fixture.advance(VISIBILITY - SECOND).await;
    assert!(fixture.lease_elsewhere().await.is_none());
    fixture.advance(SECOND).await;
    assert_eq!(
        fixture.stats().await.ready,
        1,
        "it is not renewed, because the lease has ended for good"
    );
    let outcome = lease.ack().await.unwrap();
    assert_eq!(
        outcome,
        LeaseOutcome::Applied,
        "a late ack works if no other consumer has the message"
    );
}

pub(super) async fn a_purge_ends_the_lease(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    let queue = fixture.queue.name();
    fixture.admin.purge(queue, Purge::Live).await.unwrap();
    assert_eq!(lease.ended().await, LeaseEnd::Superseded);
    assert!(fixture.seconds() <= VISIBILITY.as_secs() / 2);
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Lost);
}

pub(super) async fn it_stops_at_the_limit(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let options = ListenOptions::new(1).with_max_lease_time(SECOND * 100);
    let mut listener = fixture.listen_with(options);
    let lease = listener.next().await.unwrap();
    assert_eq!(lease.ended().await, LeaseEnd::TimeLimit);
    assert_eq!(fixture.seconds(), 100);
    fixture.run_tasks().await;
    assert_eq!(fixture.lease_elsewhere().await.unwrap().attempt, 2);
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Lost);
}

pub(super) async fn extending_goes_beyond_the_limit(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let options = ListenOptions::new(1).with_max_lease_time(SECOND * 100);
    let mut listener = fixture.listen_with(options);
    let lease = listener.next().await.unwrap();
    fixture.advance(SECOND * 50).await;
    let extended = lease.extend(SECOND * 300).await.unwrap();
    assert_eq!(extended, LeaseOutcome::Applied);
    assert_eq!(lease.ended().await, LeaseEnd::TimeLimit);
    assert_eq!(fixture.seconds(), 350);
}

pub(super) async fn an_extension_by_zero_ends_it(fixture: Fixture) {
    fixture.store(&[msg("m"), msg("n")]).await;
    let mut listener = fixture.listen(2);
    let leases = listener.next_batch(2).await.unwrap();
    for lease in &leases {
        assert!(lease.extend(Duration::ZERO).await.unwrap().is_applied());
        assert_eq!(lease.ended().await, LeaseEnd::Expired);
    }
    let stats = fixture.stats().await;
    assert_eq!((stats.ready, stats.leased), (2, 0));
    assert_eq!(fixture.seconds(), 0);
    let taken = fixture.lease_elsewhere().await.expect("two are ready");
    assert_eq!((leases.len(), taken.attempt), (2, 2));
    for lease in leases {
        let expected = match *lease.id() == taken.id {
            true => LeaseOutcome::Lost,
            false => LeaseOutcome::Applied,
        };
        assert_eq!(lease.ack().await.unwrap(), expected);
    }
}

pub(super) async fn a_short_extension_is_renewed(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    assert!(lease.extend(SECOND).await.unwrap().is_applied());
    fixture.advance(VISIBILITY * 3).await;
    assert!(!lease.is_ended());
    assert!(lease.extend(HOUR).await.unwrap().is_applied());
    let renewals = fixture.faulty.calls(Operation::Change).len();
    fixture.advance(HOUR / 2).await;
    assert_eq!(
        fixture.faulty.calls(Operation::Change).len(),
        renewals,
        "none needed"
    );
    fixture.advance(HOUR).await;
    assert!(!lease.is_ended());
    assert!(fixture.lease_elsewhere().await.is_none());
}

pub(super) async fn a_renewal_does_not_shorten_an_extension(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    fixture.advance(VISIBILITY / 3).await;
    fixture.faulty.hold_answers(Operation::Change);
    let extended = lease.extend(HOUR);
    // The renewal falls due while the extension is in flight.
    fixture.advance(VISIBILITY / 3).await;
    fixture.faulty.release();
    assert_eq!(extended.await.unwrap(), LeaseOutcome::Applied);
    fixture.run_tasks().await;
    assert_eq!(
        fixture.faulty.calls(Operation::Change),
        [1],
        "no renewal is needed"
    );
    fixture.faulty.go_down();
    fixture.advance(HOUR / 2).await;
    assert!(!lease.is_ended());
    assert!(fixture.lease_elsewhere().await.is_none());
}

pub(super) async fn a_renewal_queued_with_an_extension_does_not_either(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let lease = listener.next().await.unwrap();
    let other = listener.next().await.unwrap();
    fixture.faulty.hold_answers(Operation::Change);
    let first = other.extend(VISIBILITY);
    fixture.advance(SECOND).await;
    let extended = lease.extend(HOUR);
    // Its renewal falls due while the extension waits for the call in flight.
    fixture.advance(VISIBILITY / 2).await;
    fixture.faulty.release();
    assert_eq!(first.await.unwrap(), LeaseOutcome::Applied);
    assert_eq!(extended.await.unwrap(), LeaseOutcome::Applied);
    fixture.run_tasks().await;
    fixture.faulty.go_down();
    fixture.advance(HOUR / 2).await;
    assert!(!lease.is_ended());
}

pub(super) async fn a_refused_extension_does_not_end_renewal(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    fixture
        .faulty
        .fault(Operation::Change, Fault::Before(ErrorKind::Denied));
    let error = lease.extend(VISIBILITY).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    fixture.advance(VISIBILITY / 2).await;
    fixture.faulty.clear();
    fixture.advance(VISIBILITY * 5).await;
    assert!(!lease.is_ended());
    assert!(fixture.lease_elsewhere().await.is_none());
}

pub(super) async fn a_refused_extension_does_not_shorten_the_lease(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    let extended = lease.extend(HOUR).await.unwrap();
    assert_eq!(extended, LeaseOutcome::Applied);
    let denied = Fault::Before(ErrorKind::Denied);
    fixture.faulty.fault_once(Operation::Change, denied);
    let error = lease.extend(HOUR * 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    fixture.run_tasks().await;
    // From now on, nothing can be renewed.
    fixture.faulty.go_down();
    fixture.advance(HOUR / 2).await;
    assert!(!lease.is_ended());
    assert!(fixture.lease_elsewhere().await.is_none());
}

pub(super) async fn a_refused_renewal_holds_up_no_others(fixture: Fixture) {
    for refused in [0, 3] {
        fixture.store_many(4).await;
        let mut listener = fixture.listen(4);
        let leases = listener.next_batch(4).await.unwrap();
        let receipt = &leases[refused].delivery().receipt;
        fixture.faulty.refuse(receipt, ErrorKind::Internal);
        fixture.advance(VISIBILITY * 3).await;
        for (n, lease) in leases.iter().enumerate() {
            assert_eq!(lease.is_ended(), n == refused, "lease {n} of {refused}");
        }
        assert_eq!(fixture.attempts_elsewhere().await.len(), 1);
        fixture.faulty.clear();
        drop(leases);
        listener.drain().await;
        fixture.purge().await;
    }
}

pub(super) async fn a_refused_extension_fails_alone(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let leases = listener.next_batch(3).await.unwrap();
    let receipt = &leases[1].delivery().receipt;
    fixture.faulty.refuse(receipt, ErrorKind::InvalidInput);
    let extended: Vec<_> = leases.iter().map(|lease| lease.extend(HOUR)).collect();
    for (n, extended) in extended.into_iter().enumerate() {
        let outcome = extended.await.map_err(|error| error.kind());
        let expected = match n {
            1 => Err(ErrorKind::InvalidInput),
            _ => Ok(LeaseOutcome::Applied),
        };
        assert_eq!(outcome, expected, "lease {n}");
    }
    fixture.faulty.clear();
    fixture.advance(VISIBILITY * 3).await;
    assert!(leases.iter().all(|lease| !lease.is_ended()));
}

/// It does not renew a lease that was settled meanwhile, or shorten one that was extended.
pub(super) async fn a_renewal_repeated_alone_is_still_wanted(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let leases = listener.next_batch(3).await.unwrap();
    let [settled, extended, renewed] = <[Lease; 3]>::try_from(leases).unwrap();
    let refused = Fault::Before(ErrorKind::Internal);
    fixture.faulty.fault_once(Operation::Change, refused);
    fixture.advance(VISIBILITY / 2).await;
    assert_eq!(
        fixture.faulty.calls(Operation::Change),
        [3],
        "before the repeats"
    );
    assert!(settled.ack().await.unwrap().is_applied());
    assert!(extended.extend(HOUR).await.unwrap().is_applied());
    assert_eq!(fixture.faulty.calls(Operation::Change), [3, 1, 1]);
    fixture.faulty.go_down();
    fixture.advance(VISIBILITY * 3 / 4).await;
    assert!(!renewed.is_ended(), "it was renewed");
    fixture.advance(HOUR / 2).await;
    assert!(!extended.is_ended());
}

pub(super) async fn it_counts_from_before_the_call(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    fixture.faulty.hold_answers(Operation::Lease);
    let mut listener = fixture.listen(1);
    let next = tokio::spawn(async move { listener.next().await.unwrap() });
    // The answer takes most of the lease's time, which the store counts from the call.
    fixture.advance(VISIBILITY - SECOND).await;
    fixture.faulty.release();
    let lease = next.await.unwrap();
    for _ in 0..VISIBILITY.as_secs() {
        assert!(fixture.lease_elsewhere().await.is_none(), "renewed at once");
        fixture.advance(SECOND).await;
    }
    assert!(!lease.is_ended());
}

/// No call takes that long, so the process was suspended.
pub(super) async fn a_lease_that_expired_in_a_suspended_process_is_not_handed_out(
    fixture: Fixture,
) {
    fixture.store(&[msg("m")]).await;
    fixture.faulty.hold_answers(Operation::Lease);
    let mut listener = fixture.listen(1);
    let next = tokio::spawn(async move { listener.next().await.unwrap() });
    fixture.run_tasks().await;
    // At once: no task runs meanwhile.
    tokio::time::advance(SECOND * 100).await;
    assert_eq!(fixture.lease_elsewhere().await.unwrap().attempt, 2);
    fixture.faulty.release();
    let lease = next.await.unwrap();
    assert_eq!(lease.attempt(), 3, "it waits for the other lease to expire");
    assert_eq!(fixture.seconds(), 100 + VISIBILITY.as_secs());
}

const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A clock of another epoch. It may panic.
#[derive(Debug)]
struct YearsOff {
    clock: Arc<dyn Clock>,
    ahead: bool,
    panics: Arc<AtomicBool>,
}

impl YearsOff {
    fn options(fixture: &Fixture, ahead: bool, panics: &Arc<AtomicBool>) -> ListenOptions {
        ListenOptions::new(1).with_clock(Arc::new(Self {
            clock: fixture.clock.clone(),
            ahead,
            panics: panics.clone(),
        }))
    }

    /// Without the hook's message: a listener asks for the time a thousand times.
    fn panic_if_asked(&self) {
        if self.panics.load(Ordering::Relaxed) {
            panic::resume_unwind(Box::new("the clock"));
        }
    }
}

#[async_trait]
impl Clock for YearsOff {
    fn now(&self) -> SystemTime {
        self.panic_if_asked();
        match self.ahead {
            true => self.clock.now() + YEARS,
            false => self.clock.now() - YEARS,
        }
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        self.panic_if_asked();
        let deadline = match self.ahead {
            true => deadline - YEARS,
            false => deadline + YEARS,
        };
        self.clock.sleep_until(deadline).await;
    }
}

pub(super) async fn it_ignores_the_wall_clock(fixture: Fixture) {
    for ahead in [false, true] {
        // Whether the clock panics at first, between two readings, and at the end.
        for panics in [
            [false; 3],
            [true, false, false],
            [false, true, false],
            [true; 3],
        ] {
            fixture.store(&[msg("m")]).await;
            let panicking = Arc::new(AtomicBool::new(panics[0]));
            let options = YearsOff::options(&fixture, ahead, &panicking);
            let mut listener = fixture.queue.listen(options).unwrap();
            let lease = listener.next().await.unwrap();
            for panics in panics {
                panicking.store(panics, Ordering::Relaxed);
                fixture.advance(VISIBILITY * 3).await;
                let case = format!("ahead: {ahead}, panics: {panics:?}");
                assert!(!lease.is_ended(), "{case}");
                assert!(fixture.lease_elsewhere().await.is_none(), "{case}");
            }
            fixture.faulty.go_down();
            let down = fixture.seconds();
            assert_eq!(lease.ended().await, LeaseEnd::Expired);
            let took = fixture.seconds() - down;
            assert!(took <= VISIBILITY.as_secs() + 1, "{took}");
            fixture.faulty.clear();
            drop(lease);
            listener.drain().await;
            fixture.purge().await;
        }
    }
}

pub(super) async fn a_settled_lease_is_not_renewed(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    fixture
        .faulty
        .fault(Operation::Ack, Fault::Before(ErrorKind::Unavailable));
    lease.ack().await.unwrap_err();
    assert!(fixture.faulty.calls(Operation::Change).is_empty());
    fixture.run_tasks().await;
    assert_eq!(fixture.lease_elsewhere().await.unwrap().attempt, 2);
}

pub(super) async fn a_buffered_lease_at_its_limit_is_released(fixture: Fixture) {
    let short = |id| NewMessage::new(id).with_visibility_timeout(VISIBILITY);
    fixture.store(&[short("a"), short("b")]).await;
    let options = ListenOptions::new(2).with_max_lease_time(SECOND * 100);
    let mut listener = fixture.listen_with(options);
    let first = listener.next().await.unwrap();
    assert!(first.ack().await.unwrap().is_applied());
    fixture.advance(SECOND * 200).await;
    let second = listener.next().await.unwrap();
    assert!(!second.is_ended());
    assert_eq!(
        second.attempt(),
        1,
        "a lease that was not handed out costs no attempt"
    );
}

pub(super) async fn a_renewal_before_the_settlement_does_not_end_it(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    fixture.faulty.hold_answers(Operation::Change);
    fixture.advance(VISIBILITY / 2).await;
    assert_eq!(
        fixture.faulty.calls(Operation::Change),
        [1],
        "it is being renewed"
    );
    fixture.advance(SECOND * 10).await;
    fixture.faulty.hold_answers(Operation::Ack);
    let ended = lease.ended();
    let ack = lease.ack();
    fixture.run_tasks().await;
    fixture.faulty.release_answers(Operation::Change);
    // The renewed lease expires while its settlement is in flight.
    fixture.advance(VISIBILITY - SECOND * 5).await;
    fixture.faulty.release();
    assert_eq!(ack.await.unwrap(), LeaseOutcome::Applied);
    assert_eq!(ended.await, LeaseEnd::Settled);
}

/// Only the store knows whether another consumer has the message.
pub(super) async fn the_store_decides_whether_an_extension_is_lost(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (_listener, lease) = fixture.one_lease().await;
    fixture.faulty.go_down();
    assert_eq!(lease.ended().await, LeaseEnd::Expired);
    let error = lease.extend(VISIBILITY).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fixture.faulty.clear();
    fixture.run_tasks().await;
    assert!(fixture.lease_elsewhere().await.is_some());
    let asked = fixture.faulty.calls(Operation::Change).len();
    let extended = lease.extend(VISIBILITY).await.unwrap();
    assert_eq!(extended, LeaseOutcome::Lost);
    assert_eq!(fixture.faulty.calls(Operation::Change).len(), asked + 1);
}

/// How a call that carries an extension goes while the lease's owner acks.
const BEFORE_THE_ACK: [&str; 3] = ["not sent", "to be repeated", "in flight and fails"];

pub(super) async fn an_extension_of_a_settled_lease_is_an_error(fixture: Fixture) {
    for how in BEFORE_THE_ACK {
        fixture.store_many(2).await;
        let mut listener = fixture.listen(2);
        let lease = listener.next().await.unwrap();
        let other = listener.next().await.unwrap();
        let fails = Fault::Before(ErrorKind::Unavailable);
        let blocking = match how {
            "not sent" => {
                fixture.faulty.hold_answers(Operation::Change);
                let blocking = other.extend(VISIBILITY);
                fixture.run_tasks().await;
                Some(blocking)
            }
            _ => None,
        };
        if how == "to be repeated" {
            fixture.faulty.fault_once(Operation::Change, fails);
        }
        if how == "in flight and fails" {
            fixture.faulty.hold_answers(Operation::Change);
            let lost = Fault::After(ErrorKind::Unavailable);
            fixture.faulty.fault_once(Operation::Change, lost);
        }
        let extended = lease.extend(HOUR);
        fixture.run_tasks().await;
        assert!(lease.ack().await.unwrap().is_applied());
        fixture.faulty.release();
        let error = extended.await.expect_err(how);
        assert!(error.is_retryable(), "{how}: {error}");
        if let Some(blocking) = blocking {
            assert!(blocking.await.unwrap().is_applied());
        }
        assert!(other.ack().await.unwrap().is_applied());
        listener.drain().await;
        fixture.faulty.clear();
    }
}

pub(super) async fn a_context_that_outlives_its_message_cannot_extend_it(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let kept = Arc::new(Mutex::new(None));
    let keeps = kept.clone();
    let worker = worker(&fixture, move |_: String, context: Context| {
        *keeps.lock().unwrap() = Some(context);
        async { Ok::<_, Failure>(()) }
    });
    let stop = fixture.clock.now() + SECOND * 10;
    let extending = async {
        fixture.advance(SECOND).await;
        let context = kept.lock().unwrap().take().unwrap();
        let error = context.extend(VISIBILITY).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains("was settled"), "{error}");
    };
    let running = worker.run(fixture.clock.sleep_until(stop));
    let (report, ()) = futures::join!(running, extending);
    assert_eq!(counts(report.unwrap()), [1, 0, 0, 0, 0, 0]);
}
