//! What a listener claims, and when.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, future::select_all};
use queue_api::{ErrorKind, LeaseOutcome, consumer::ListenOptions};

use super::fixture::{Fixture, HOUR, SECOND, msg};
use crate::{Fault, Operation};

pub(super) async fn it_yields_what_is_enqueued(fixture: Fixture) {
    fixture.store_many(5).await;
    let mut listener = fixture.listen(5);
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(listener.next().await.unwrap());
    }
    let ids: BTreeSet<_> = leases.iter().map(|lease| lease.id().as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["0", "1", "2", "3", "4"]));
}

pub(super) async fn it_is_a_stream(fixture: Fixture) {
    fixture.store_many(5).await;
    let leases = fixture.listen(2).take(5);
    let acked = leases.for_each_concurrent(None, |lease| async move {
        assert!(lease.ack().await.unwrap().is_applied());
    });
    acked.await;
    assert_eq!(fixture.stats().await, Default::default());
}

pub(super) async fn it_holds_at_most_its_concurrency(fixture: Fixture) {
    fixture.store_many(10).await;
    let mut listener = fixture.listen(3);
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(listener.next().await.unwrap());
    }
    let fourth = tokio::time::timeout(HOUR, listener.next()).await;
    assert!(fourth.is_err(), "three are leased");
    assert_eq!(fixture.stats().await.leased, 3);

    assert!(leases.pop().unwrap().ack().await.unwrap().is_applied());
    leases.push(listener.next().await.unwrap());
    fixture.run_tasks().await;
    assert_eq!(fixture.stats().await.leased, 3);
}

pub(super) async fn it_claims_nothing_until_polled(fixture: Fixture) {
    fixture.store_many(3).await;
    let _listener = fixture.listen(3);
    fixture.advance(HOUR).await;
    assert_eq!(fixture.stats().await.ready, 3);
    assert!(fixture.faulty.calls(Operation::Lease).is_empty());
}

pub(super) async fn it_claims_in_batches(fixture: Fixture) {
    fixture.store_many(100).await;
    let mut listener = fixture.listen(100);
    let mut leases = Vec::new();
    for _ in 0..100 {
        leases.push(listener.next().await.unwrap());
    }
    assert_eq!(fixture.faulty.calls(Operation::Lease), [100]);
}

pub(super) async fn it_claims_only_what_can_start_now(fixture: Fixture) {
    fixture.store_many(10).await;
    let mut listener = fixture.listen(4);
    let first = listener.next().await.unwrap();
    let second = listener.next().await.unwrap();
    assert!(first.ack().await.unwrap().is_applied());
    assert!(second.ack().await.unwrap().is_applied());
    fixture.run_tasks().await;
    // Two of the four are still in the inbox, so no more are claimed.
    assert_eq!(fixture.faulty.calls(Operation::Lease), [4]);
    let _taken = [
        listener.next().await.unwrap(),
        listener.next().await.unwrap(),
    ];
    let _fifth = listener.next().await.unwrap();
    assert_eq!(fixture.faulty.calls(Operation::Lease), [4, 2]);
}

pub(super) async fn settlements_in_flight_take_no_room(fixture: Fixture) {
    fixture.store_many(10).await;
    let mut listener = fixture.listen(3);
    fixture.faulty.hold_answers(Operation::Ack);
    let mut answers = Vec::new();
    // The second three are claimed while the acks of the first are in flight.
    for _ in 0..6 {
        answers.push(listener.next().await.unwrap().ack());
    }
    assert_eq!(fixture.faulty.calls(Operation::Lease), [3, 3]);
    let seventh = tokio::time::timeout(SECOND, listener.next()).await;
    assert!(
        seventh.is_err(),
        "nothing is claimed while the store does not answer"
    );
    assert_eq!(fixture.faulty.calls(Operation::Lease), [3, 3]);
    fixture.faulty.release();
    listener.next().await.unwrap();
    for answer in answers {
        assert_eq!(answer.await.unwrap(), LeaseOutcome::Applied);
    }
    assert_eq!(fixture.faulty.calls(Operation::Ack), [3, 3]);
}

pub(super) async fn it_rarely_polls_an_empty_queue(fixture: Fixture) {
    let mut listener = fixture.listen(8);
    let nothing = tokio::time::timeout(HOUR, listener.next()).await;
    assert!(nothing.is_err());
    let asked = fixture.faulty.calls(Operation::Lease).len();
    assert!(
        asked <= 3600 / 20 + 1,
        "{asked} lease calls in an idle hour"
    );
    assert!(asked > 100, "a lost wake-up costs a bounded delay: {asked}");
}

/// Workers that a deployment starts at the same time must not call the store at the same time.
pub(super) async fn idle_listeners_do_not_look_at_the_same_time(fixture: Fixture) {
    let mut listeners: Vec<_> = (0..20).map(|_| fixture.listen(1)).collect();
    let mut idle = select_all(listeners.iter_mut().map(|it| Box::pin(it.next())));
    let (mut asked, mut times) = (0, 0);
    for _ in 0..1000 {
        let nothing = tokio::time::timeout(SECOND / 10, &mut idle).await;
        assert!(nothing.is_err());
        let so_far = fixture.faulty.calls(Operation::Lease).len();
        times += usize::from(so_far > asked);
        asked = so_far;
    }
    assert!(asked >= 60, "{asked} lease calls in 100 s");
    assert!(times >= 30, "{asked} lease calls at {times} times");
}

pub(super) async fn an_enqueue_wakes_it(fixture: Fixture) {
    let mut listener = fixture.listen(1);
    let waiting = tokio::spawn(async move { listener.next().await.map(|lease| lease.ack()) });
    fixture.advance(SECOND * 5).await;
    fixture.store(&[msg("m")]).await;
    let before = fixture.seconds();
    assert!(waiting.await.unwrap().unwrap().await.unwrap().is_applied());
    assert_eq!(fixture.seconds(), before, "no second passed");
}

pub(super) async fn a_delayed_message_comes_when_it_is_due(fixture: Fixture) {
    fixture.store(&[msg("m").with_delay(SECOND * 100)]).await;
    let mut listener = fixture.listen(1);
    listener.next().await.unwrap();
    assert_eq!(fixture.seconds(), 100);
}

pub(super) async fn it_pauses_when_waits_return_early(fixture: Fixture) {
    // Every wait says that something is ready, and nothing ever is.
    fixture.faulty.fault(Operation::Wait, Fault::NoWait);
    let mut listener = fixture.listen(8);
    let nothing = tokio::time::timeout(HOUR, listener.next()).await;
    assert!(nothing.is_err());
    let asked = fixture.faulty.calls(Operation::Lease).len();
    assert!(asked < 4 * 3600, "{asked} lease calls in an hour");
    assert!(asked > 3600, "it keeps polling: {asked}");
}

pub(super) async fn ten_thousand_messages_take_few_calls(fixture: Fixture) {
    fixture.store_many(10_000).await;
    let mut listener = fixture.listen(64);
    let mut seen = BTreeSet::new();
    let mut answers = Vec::new();
    while seen.len() < 10_000 {
        let lease = listener.next().await.unwrap();
        assert!(seen.insert(lease.id().clone()), "{} twice", lease.id());
        answers.push(lease.ack());
    }
    for answer in answers {
        assert!(answer.await.unwrap().is_applied());
    }
    assert_eq!(fixture.stats().await.leased, 0);
    for call in [Operation::Lease, Operation::Ack] {
        let calls = fixture.faulty.calls(call);
        assert!(calls.len() < 10_000 / 16, "{call:?}: {}", calls.len());
        assert!(calls.iter().all(|size| *size <= 64));
    }
    assert!(
        fixture.faulty.calls(Operation::Change).is_empty(),
        "nothing was renewed"
    );
}

pub(super) async fn invalid_options_are_refused(fixture: Fixture) {
    for options in [
        ListenOptions::new(0),
        ListenOptions::new(1).with_visibility_timeout(Duration::ZERO),
        ListenOptions::new(1).with_visibility_timeout(HOUR * 24 * 365),
    ] {
        let error = fixture.queue.listen(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

pub(super) async fn a_batch_is_what_is_there(fixture: Fixture) {
    let mut listener = fixture.listen(4);
    let nothing = tokio::time::timeout(HOUR, listener.next_batch(10)).await;
    assert!(nothing.is_err(), "it waits for the first");
    fixture.store_many(7).await;
    let sizes = [(3, 3), (10, 1)];
    let mut leases = Vec::new();
    for (max, expected) in sizes {
        let batch = listener.next_batch(max).await.unwrap();
        assert_eq!(batch.len(), expected, "of at most {max}");
        leases.extend(batch);
    }
    fixture.run_tasks().await;
    assert_eq!(
        fixture.stats().await.leased,
        4,
        "no more than the concurrency, and nothing ahead"
    );
    let claimed = fixture.faulty.calls(Operation::Lease).len();
    for ack in leases
        .drain(..)
        .map(|lease| lease.ack())
        .collect::<Vec<_>>()
    {
        assert_eq!(ack.await.unwrap(), LeaseOutcome::Applied);
    }
    assert_eq!(fixture.faulty.calls(Operation::Ack), [4]);
    fixture.run_tasks().await;
    let calls = fixture.faulty.calls(Operation::Lease).len();
    assert_eq!(calls, claimed, "it claims nothing until polled");
    let batch = listener.next_batch(0).await.unwrap();
    assert_eq!(batch.len(), 1);
    listener.stop().await;
    assert!(listener.next_batch(10).await.is_none(), "after the end");
    assert_eq!(fixture.stats().await.ready, 2);
}

pub(super) async fn dropping_a_wait_for_a_batch_loses_nothing(fixture: Fixture) {
    let mut listener = fixture.listen(4);
    for _ in 0..3 {
        let nothing = tokio::time::timeout(SECOND, listener.next_batch(4)).await;
        assert!(nothing.is_err());
        fixture.faulty.hold_answers(Operation::Lease);
        fixture.store_many(4).await;
        let nothing = tokio::time::timeout(SECOND, listener.next_batch(4)).await;
        assert!(nothing.is_err(), "the claim is in flight");
        fixture.faulty.release();
        let batch = listener.next_batch(4).await.unwrap();
        assert_eq!(batch.len(), 4);
        for lease in batch {
            assert_eq!(lease.attempt(), 1);
            assert!(lease.ack().await.unwrap().is_applied());
        }
    }
}
