//! How a listener ends.

use std::{collections::BTreeMap, time::Duration};

use queue_api::LeaseOutcome;

use super::{
    faulty::Call,
    fixture::{Fixture, HOUR, SECOND, VISIBILITY, msg},
};

pub(super) async fn it_ends_the_stream(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let _first = listener.next().await.unwrap();
    drop(listener.stop());
    assert!(listener.next().await.is_none(), "at once, also unawaited");
    fixture.store(&[msg("later")]).await;
    fixture.pass(HOUR).await;
    assert!(listener.next().await.is_none(), "and for good");
    assert_eq!(fixture.stats().await.ready, 2);
}

pub(super) async fn it_gives_back_what_was_not_handed_out(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let held = listener.next().await.unwrap();
    assert_eq!(fixture.stats().await.leased, 3);
    listener.stop().await;
    assert_eq!(fixture.stats().await.leased, 1);
    let expected = BTreeMap::from([("1".to_owned(), 1), ("2".to_owned(), 1)]);
    assert_eq!(
        fixture.attempts_elsewhere().await,
        expected,
        "no attempt lost"
    );
    assert_eq!(held.ack().await.unwrap(), LeaseOutcome::Applied);
    assert_eq!(fixture.seconds(), 0);
}

pub(super) async fn it_gives_back_what_a_call_under_way_leases(fixture: Fixture) {
    fixture.store_many(3).await;
    fixture.store.hold_answers(Call::Lease);
    let mut listener = fixture.listen(3);
    let nothing = tokio::time::timeout(SECOND, listener.next()).await;
    assert!(nothing.is_err(), "the call is under way");
    assert_eq!(fixture.stats().await.leased, 3);
    let stopping = listener.stop();
    fixture.settle().await;
    fixture.store.release_answers();
    stopping.await;
    assert_eq!(fixture.stats().await.ready, 3);
    assert!(fixture.attempts_elsewhere().await.values().all(|n| *n == 1));
}

pub(super) async fn dropping_the_listener_gives_back_too(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let held = listener.next().await.unwrap();
    drop(listener);
    fixture.settle().await;
    assert_eq!(fixture.stats().await.leased, 1);
    assert_eq!(fixture.attempts_elsewhere().await.len(), 2);
    assert_eq!(held.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn leases_handed_out_live_on(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (listener, lease) = fixture.one_lease().await;
    listener.stop().await;
    drop(listener);
    fixture.pass(VISIBILITY * 20).await;
    assert!(!lease.is_lost());
    assert!(fixture.lease_elsewhere().await.is_none());
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn draining_waits_for_every_lease(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let acked = listener.next().await.unwrap();
    let dropped = listener.next().await.unwrap();
    let draining = tokio::spawn(listener.drain());
    fixture.pass(SECOND * 100).await;
    assert!(!draining.is_finished());
    acked.ack();
    fixture.pass(SECOND).await;
    assert!(!draining.is_finished());
    drop(dropped);
    draining.await.unwrap();
    let stats = fixture.stats().await;
    assert_eq!((stats.leased, stats.delayed), (0, 1));
}

pub(super) async fn a_failing_store_does_not_keep_it_forever(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let lease = listener.next().await.unwrap();
    fixture.store.go_down();
    listener.stop().await;
    assert!(
        fixture.seconds() <= VISIBILITY.as_secs() + 5,
        "as long as the lease that it gives back may last: {}",
        fixture.seconds()
    );
    fixture.store.heal();
    drop(lease);
}

/// `Listen(n)`: n tasks feed a channel, backing off while the queue is empty or the store fails.
/// `StopListen` closes it, and what was taken can still be done.
pub(super) async fn listen_and_stop_listen_as_the_ancestor_had_them(fixture: Fixture) {
    let listener = fixture.listen(4);
    let (sender, mut channel) = tokio::sync::mpsc::channel(4);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut listener = listener;
        let mut stopped = stopped;
        loop {
            tokio::select! {
                Some(lease) = listener.next() => { let _ = sender.send(lease).await; }
                _ = &mut stopped => return listener.stop().await,
            }
        }
    });
    fixture.pass(HOUR).await;
    fixture.store.go_down();
    fixture.pass(HOUR).await;
    fixture.store.heal();
    fixture.store_many(6).await;
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(channel.recv().await.unwrap());
    }
    stop.send(()).unwrap();
    assert!(channel.recv().await.is_none(), "the channel is closed");
    for message in taken {
        assert_eq!(message.ack().await.unwrap(), LeaseOutcome::Applied);
    }
    fixture.pass(Duration::from_millis(1)).await;
    let stats = fixture.stats().await;
    assert_eq!((stats.ready, stats.leased), (2, 0));
}
