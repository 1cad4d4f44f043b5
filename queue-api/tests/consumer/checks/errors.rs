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
    consumer::{Context, Failure, LeaseEnd, ListenOptions},
};

use super::{
    bed::{Bed, HOUR, SECOND, VISIBILITY, msg},
    faulty::{Call, Fault},
    worker::{counts, worker},
};

pub(super) async fn a_failing_store_is_asked_again_after_growing_pauses(bed: Bed) {
    bed.store(&[msg("m")]).await;
    bed.store.go_down();
    let told = Arc::new(AtomicUsize::new(0));
    let counter = told.clone();
    let options = ListenOptions::new(1).with_error_hook(move |error| {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let mut listener = bed.listen_with(options);
    let nothing = tokio::time::timeout(HOUR, listener.next()).await;
    assert!(nothing.is_err());
    let asked = bed.store.calls(Call::Lease).len();
    assert!((360..800).contains(&asked), "{asked} calls in an hour");
    assert_eq!(
        told.load(Ordering::Relaxed),
        asked,
        "each error is reported"
    );

    bed.store.heal();
    let before = bed.seconds();
    assert!(listener.next().await.is_some());
    assert!(bed.seconds() <= before + 10, "it recovers by itself");
}

pub(super) async fn it_recovers_when_a_denial_ends(bed: Bed) {
    bed.store(&[msg("m")]).await;
    bed.store
        .fault(Call::Lease, Fault::Fails(ErrorKind::Denied));
    let mut listener = bed.listen(1);
    let nothing = tokio::time::timeout(SECOND * 4, listener.next()).await;
    assert!(nothing.is_err());
    assert_eq!(
        bed.store.calls(Call::Lease).len(),
        1,
        "a long pause at once"
    );
    bed.store.heal();
    assert!(listener.next().await.is_some());
    assert!(bed.seconds() <= 10);
}

pub(super) async fn a_failing_wait_is_survived(bed: Bed) {
    bed.store
        .fault(Call::Wait, Fault::Fails(ErrorKind::Unavailable));
    let mut listener = bed.listen(1);
    let nothing = tokio::time::timeout(HOUR, listener.next()).await;
    assert!(nothing.is_err());
    let asked = bed.store.calls(Call::Wait).len();
    assert!(asked < 3600 * 10, "{asked} waits in an hour");
    bed.store(&[msg("m")]).await;
    assert!(listener.next().await.is_some());
}

pub(super) async fn a_panicking_backend_is_survived(bed: Bed) {
    bed.store(&[msg("m")]).await;
    bed.store.fault(Call::Lease, Fault::Panics);
    let mut listener = bed.listen(1);
    let nothing = tokio::time::timeout(SECOND, listener.next()).await;
    assert!(nothing.is_err());
    bed.store.heal();
    assert!(listener.next().await.is_some());
}

pub(super) async fn a_panicking_hook_is_survived(bed: Bed) {
    bed.store(&[msg("m")]).await;
    bed.store.go_down();
    let options = ListenOptions::new(1).with_error_hook(|_| panic!("of the hook"));
    let mut listener = bed.listen_with(options);
    let nothing = tokio::time::timeout(SECOND, listener.next()).await;
    assert!(nothing.is_err());
    bed.store.heal();
    assert!(listener.next().await.is_some());
}

pub(super) async fn a_verdict_is_repeated_while_the_lease_lasts(bed: Bed) {
    bed.store_many(2).await;
    let mut listener = bed.listen(2);
    let first = listener.next().await.unwrap();
    let second = listener.next().await.unwrap();
    bed.store.go_down();
    let (ack, nack) = (first.ack(), second.nack(HOUR));
    bed.pass(VISIBILITY / 2).await;
    bed.store.heal();
    assert_eq!(ack.await.unwrap(), LeaseOutcome::Applied);
    assert_eq!(nack.await.unwrap(), LeaseOutcome::Applied);
    assert!(bed.seconds() < VISIBILITY.as_secs());
    assert_eq!(bed.stats().await.delayed, 1);
}

pub(super) async fn a_lost_answer_is_not_a_lost_lease(bed: Bed) {
    bed.store_many(3).await;
    let mut listener = bed.listen(3);
    bed.store.fault(Call::Ack, Fault::LosesOneAnswer);
    let lease = listener.next().await.unwrap();
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);

    bed.store.fault(Call::Change, Fault::LosesOneAnswer);
    let lease = listener.next().await.unwrap();
    let nack = lease.nack(HOUR);
    assert_eq!(nack.await.unwrap(), LeaseOutcome::Applied);

    bed.store.fault(Call::Change, Fault::LosesOneAnswer);
    let lease = listener.next().await.unwrap();
    lease.extend(VISIBILITY).await.unwrap();
    assert_eq!(bed.stats().await.leased, 1);
    assert_eq!(bed.stats().await.delayed, 1);
}

pub(super) async fn a_verdict_that_cannot_be_given_is_an_error(bed: Bed) {
    bed.store(&[msg("m")]).await;
    let (mut listener, lease) = bed.one_lease().await;
    bed.store.go_down();
    let error = lease.ack().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let gave_up = bed.seconds();
    assert!((30..=36).contains(&gave_up), "{gave_up}");
    bed.store.heal();
    assert_eq!(listener.next().await.unwrap().attempt(), 2);
}

/// A clock that counts how often it is waited for. Virtual time stands still for a task that never
/// stops asking, so such a task is ended.
#[derive(Debug)]
struct Counting {
    clock: Arc<dyn Clock>,
    sleeps: AtomicUsize,
}

impl Counting {
    fn new(bed: &Bed) -> Arc<Self> {
        Arc::new(Self {
            clock: bed.clock.clone(),
            sleeps: AtomicUsize::new(0),
        })
    }

    fn sleeps(&self) -> usize {
        self.sleeps.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Clock for Counting {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        let sleeps = self.sleeps.fetch_add(1, Ordering::Relaxed);
        assert!(sleeps < 10_000, "it asks for the time without an end");
        self.clock.sleep_until(deadline).await;
    }
}

/// Stores a message whose lease runs out on the way to whoever claims it, and one whose does not.
async fn store_a_late_one_and_another(bed: &Bed) {
    let late = msg("late").with_visibility_timeout(Duration::from_millis(200));
    bed.store(&[late, msg("other").with_visibility_timeout(HOUR)])
        .await;
    bed.store.hold_answers(Call::Lease);
}

pub(super) async fn a_late_claim_does_not_keep_it_busy(bed: Bed) {
    store_a_late_one_and_another(&bed).await;
    let clock = Counting::new(&bed);
    let options = ListenOptions::new(2).with_clock(clock.clone());
    let mut listener = bed.queue.listen(options).unwrap();
    let next = tokio::spawn(async move { (listener.next().await.unwrap(), listener) });
    bed.pass(SECOND).await;
    bed.store.release_answers();
    let (lease, _listener) = next.await.unwrap();
    assert_eq!(lease.payload(), "other");
    // Nobody asks for more.
    bed.pass(SECOND * 60).await;
    assert!(clock.sleeps() < 100, "{}", clock.sleeps());
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn a_late_claim_without_room_does_not_either(bed: Bed) {
    store_a_late_one_and_another(&bed).await;
    bed.store.hold_answers(Call::Change);
    let clock = Counting::new(&bed);
    let (waits, stop) = (bed.clock.clone(), bed.clock.now() + SECOND * 60);
    let worker = worker(&bed, move |_: String, _: Context| {
        let clock = waits.clone();
        async move {
            clock.sleep_until(clock.now() + SECOND).await;
            Ok::<_, Failure>(())
        }
    });
    let worker = worker.with_listen_options(ListenOptions::new(2).with_clock(clock.clone()));
    let shutdown = bed.clock.clone();
    let running = tokio::spawn(async move { worker.run(shutdown.sleep_until(stop)).await });
    bed.pass(SECOND).await;
    bed.store.release_answers_to(Call::Lease);
    // What is to be given back takes the place of the next claim.
    bed.pass(SECOND / 10).await;
    bed.store.release_answers();
    assert_eq!(counts(running.await.unwrap().unwrap()), [2, 0, 0, 0, 0, 0]);
    assert!(clock.sleeps() < 1000, "{}", clock.sleeps());
}

pub(super) async fn a_verdict_that_hangs_ends_with_its_lease(bed: Bed) {
    bed.store_many(2).await;
    let mut listener = bed.listen(2);
    let lease = listener.next().await.unwrap();
    let other = listener.next().await.unwrap();
    bed.store.hold_answers(Call::Ack);
    let error = lease.ack().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(bed.seconds(), VISIBILITY.as_secs(), "then and not before");
    bed.store.release_answers();
    assert_eq!(other.ack().await.unwrap(), LeaseOutcome::Applied);

    bed.store(&[msg("m")]).await;
    let lease = listener.next().await.unwrap();
    bed.store.hold_answers(Call::Change);
    assert_eq!(lease.lost().await, LeaseEnd::Expired);
    bed.store.release_answers();
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn a_worker_stops_though_its_verdict_hangs(bed: Bed) {
    bed.store_many(1).await;
    bed.store.hold_answers(Call::Ack);
    let worker = worker(&bed, |_: String, _: Context| async { Ok::<_, Failure>(()) });
    let stop = bed.clock.now() + SECOND * 5;
    let report = worker.run(bed.clock.sleep_until(stop)).await.unwrap();
    assert_eq!(counts(report), [0, 0, 0, 0, 0, 1]);
    assert_eq!(bed.seconds(), VISIBILITY.as_secs());
}
