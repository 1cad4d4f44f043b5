//! A store that fails.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use queue_api::{ErrorKind, LeaseOutcome, consumer::ListenOptions};

use super::{
    bed::{Bed, HOUR, SECOND, VISIBILITY, msg},
    faulty::{Call, Fault},
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
