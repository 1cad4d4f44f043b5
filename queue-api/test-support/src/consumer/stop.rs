//! How a listener stops.

use std::{collections::BTreeMap, time::Duration};

use queue_api::LeaseOutcome;

use super::fixture::{Fixture, HOUR, SECOND, VISIBILITY, msg};
use crate::Operation;

pub(super) async fn it_ends_the_stream(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let _first = listener.next().await.unwrap();
    drop(listener.stop());
    assert!(
        listener.next().await.is_none(),
        "at once, without awaiting the stop"
    );
    fixture.store(&[msg("later")]).await;
    fixture.advance(HOUR).await;
    assert!(listener.next().await.is_none(), "and for good");
    assert_eq!(fixture.stats().await.ready, 2);
}

pub(super) async fn it_releases_what_was_not_handed_out(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let lease = listener.next().await.unwrap();
    assert_eq!(fixture.stats().await.leased, 3);
    listener.stop().await;
    assert_eq!(fixture.stats().await.leased, 1);
    let expected = BTreeMap::from([("1".to_owned(), 1), ("2".to_owned(), 1)]);
    assert_eq!(
        fixture.attempts_elsewhere().await,
        expected,
        "the attempt does not count"
    );
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
    assert_eq!(fixture.seconds(), 0);
}

pub(super) async fn it_releases_what_a_call_in_flight_leases(fixture: Fixture) {
    fixture.store_many(3).await;
    fixture.faulty.hold_answers(Operation::Lease);
    let mut listener = fixture.listen(3);
    let nothing = tokio::time::timeout(SECOND, listener.next()).await;
    assert!(nothing.is_err(), "the call is in flight");
    assert_eq!(fixture.stats().await.leased, 3);
    let stopping = listener.stop();
    fixture.run_tasks().await;
    fixture.faulty.release();
    stopping.await;
    assert_eq!(fixture.stats().await.ready, 3);
    assert!(fixture.attempts_elsewhere().await.values().all(|n| *n == 1));
}

pub(super) async fn dropping_the_listener_releases_too(fixture: Fixture) {
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let lease = listener.next().await.unwrap();
    drop(listener);
    fixture.run_tasks().await;
    assert_eq!(fixture.stats().await.leased, 1);
    assert_eq!(fixture.attempts_elsewhere().await.len(), 2);
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn leases_handed_out_stay_renewed(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (listener, lease) = fixture.one_lease().await;
    listener.stop().await;
    drop(listener);
    fixture.advance(VISIBILITY * 20).await;
    assert!(!lease.is_ended());
    assert!(fixture.lease_elsewhere().await.is_none());
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

pub(super) async fn draining_waits_for_every_lease(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let acked = listener.next().await.unwrap();
    let dropped = listener.next().await.unwrap();
    let draining = tokio::spawn(listener.drain());
    fixture.advance(SECOND * 100).await;
    assert!(!draining.is_finished());
    acked.ack();
    fixture.advance(SECOND).await;
    assert!(!draining.is_finished());
    drop(dropped);
    draining.await.unwrap();
    let stats = fixture.stats().await;
    assert_eq!((stats.leased, stats.delayed), (0, 1));
}

pub(super) async fn a_failing_store_does_not_block_it(fixture: Fixture) {
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let lease = listener.next().await.unwrap();
    fixture.faulty.go_down();
    listener.stop().await;
    assert!(
        fixture.seconds() <= VISIBILITY.as_secs() + 5,
        "it repeats the release while the lease lasts: {}",
        fixture.seconds()
    );
    fixture.faulty.clear();
    drop(lease);
}

/// A task can put leases in a channel, through empty queues and failing stores. When it stops, the
/// leases that were taken can still be settled.
pub(super) async fn a_task_can_feed_a_channel_and_close_it(fixture: Fixture) {
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
    fixture.advance(HOUR).await;
    fixture.faulty.go_down();
    fixture.advance(HOUR).await;
    fixture.faulty.clear();
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
    fixture.advance(Duration::from_millis(1)).await;
    let stats = fixture.stats().await;
    assert_eq!((stats.ready, stats.leased), (2, 0));
}
