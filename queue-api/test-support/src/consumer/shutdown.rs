//! How a worker shuts down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::Ready;
use queue_api::consumer::{Context, Failure, Worker};

use super::{
    fixture::{Fixture, HOUR, SECOND, VISIBILITY, msg},
    worker::{counts, worker},
};
use crate::{Faulty, Operation};

/// A handler that sleeps for `time`.
fn sleeper(
    fixture: &Fixture,
    time: Duration,
) -> impl Fn(String, Context) -> futures::future::BoxFuture<'static, Result<(), Failure>> + use<> {
    let clock = fixture.clock.clone();
    move |_, _| {
        let clock = clock.clone();
        Box::pin(async move {
            clock.sleep_until(clock.now() + time).await;
            Ok(())
        })
    }
}

pub(super) async fn handlers_may_finish(fixture: Fixture) {
    fixture.store_many(10).await;
    let worker =
        worker(&fixture, sleeper(&fixture, SECOND * 60)).with_shutdown_deadline(SECOND * 90);
    let stop = fixture.clock.now() + SECOND * 10;
    let report = worker.run(fixture.clock.sleep_until(stop)).await.unwrap();
    assert_eq!(counts(report), [4, 0, 0, 0, 0, 0]);
    assert_eq!(
        fixture.seconds(),
        60,
        "as soon as the handlers finish, after two visibility timeouts"
    );
    assert_eq!(fixture.stats().await.ready, 6);
    assert!(fixture.attempts_elsewhere().await.values().all(|n| *n == 1));
}

pub(super) async fn at_the_deadline_they_are_cancelled_and_cost_no_attempt(fixture: Fixture) {
    fixture.store_many(10).await;
    let worker =
        worker(&fixture, sleeper(&fixture, SECOND * 600)).with_shutdown_deadline(SECOND * 90);
    let stop = fixture.clock.now() + SECOND * 10;
    let report = worker.run(fixture.clock.sleep_until(stop)).await.unwrap();
    assert_eq!(counts(report), [0, 0, 0, 4, 0, 0]);
    assert_eq!(fixture.seconds(), 100);
    let stats = fixture.stats().await;
    assert_eq!((stats.ready, stats.leased), (10, 0));
    assert!(fixture.attempts_elsewhere().await.values().all(|n| *n == 1));
}

pub(super) async fn running_handlers_keep_their_leases(fixture: Fixture) {
    fixture.store_many(1).await;
    let worker =
        worker(&fixture, sleeper(&fixture, SECOND * 600)).with_shutdown_deadline(SECOND * 300);
    let stop = fixture.clock.now() + SECOND * 10;
    let other = fixture.elsewhere.clone();
    let running = tokio::spawn({
        let clock = fixture.clock.clone();
        async move { worker.run(clock.sleep_until(stop)).await }
    });
    for _ in 0..9 {
        fixture.advance(VISIBILITY).await;
        assert!(other.lease().await.unwrap().is_none());
    }
    assert_eq!(counts(running.await.unwrap().unwrap()), [0, 0, 0, 1, 0, 0]);
}

pub(super) async fn a_cancellation_token_stops_it(fixture: Fixture) {
    fixture.store_many(1).await;
    let token = tokio_util::sync::CancellationToken::new();
    let worker = worker(&fixture, sleeper(&fixture, SECOND));
    let cancelled = token.clone().cancelled_owned();
    let running = tokio::spawn(async move { worker.run(cancelled).await });
    fixture.advance(SECOND * 5).await;
    assert!(!running.is_finished());
    token.cancel();
    assert_eq!(counts(running.await.unwrap().unwrap()), [1, 0, 0, 0, 0, 0]);
    assert_eq!(fixture.seconds(), 5, "an idle worker stops at once");
}

pub(super) async fn handlers_learn_of_it(fixture: Fixture) {
    fixture.store_many(1).await;
    let worker = worker(&fixture, |_: String, context: Context| async move {
        context.stopping().await;
        Err::<(), _>(Failure::retry_after(SECOND, "stopped early"))
    });
    let stop = fixture.clock.now() + SECOND * 10;
    let report = worker.run(fixture.clock.sleep_until(stop)).await.unwrap();
    assert_eq!(counts(report), [0, 1, 0, 0, 0, 0]);
    assert_eq!(fixture.seconds(), 10);
}

pub(super) async fn dropping_the_run_nacks_its_messages(fixture: Fixture) {
    fixture.store_many(3).await;
    let worker = worker(&fixture, sleeper(&fixture, SECOND * 600));
    let running = worker.run(std::future::pending::<()>());
    let dropped = tokio::time::timeout(SECOND * 5, running).await;
    assert!(dropped.is_err());
    fixture.advance(SECOND).await;
    let stats = fixture.stats().await;
    assert_eq!((stats.ready, stats.leased), (3, 0));
    assert!(fixture.attempts_elsewhere().await.values().all(|n| *n == 2));
}

pub(super) async fn it_may_be_run_again(fixture: Fixture) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let worker = worker(&fixture, move |_: String, _: Context| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Failure>(()) }
    });
    for round in 1..=3 {
        fixture.store_many(5).await;
        let report = worker.run_until_idle().await.unwrap();
        assert_eq!(counts(report), [5, 0, 0, 0, 0, 0]);
        assert_eq!(runs.load(Ordering::Relaxed), round * 5);
    }
}

pub(super) async fn endless_durations_are_accepted(fixture: Fixture) {
    fixture.store_many(1).await;
    let worker = worker(&fixture, sleeper(&fixture, SECOND * 60))
        .with_time_limit(Duration::MAX)
        .with_shutdown_deadline(Duration::MAX);
    let stop = fixture.clock.now() + SECOND * 10;
    // Any output is accepted, such as the result of `tokio::signal::ctrl_c()`.
    let shutdown = async {
        fixture.clock.sleep_until(stop).await;
        Ok::<_, std::io::Error>(())
    };
    let report = worker.run(shutdown).await.unwrap();
    assert_eq!(counts(report), [1, 0, 0, 0, 0, 0]);
    assert_eq!(fixture.seconds(), 60);
}

/// A way in which a store is away, the worker's concurrency, and the counts of the report on a
/// handler that finishes and one that is cancelled. With more than two, a third message is claimed.
type Away = (&'static str, fn(&Faulty), usize, [u64; 6]);

const AWAY: [Away; 6] = [
    ("calls fail", Faulty::go_down, 4, [0, 0, 0, 0, 0, 2]),
    ("calls hang", Faulty::hold_calls, 4, [0, 0, 0, 0, 0, 2]),
    (
        "acks hang",
        |store| store.hold_answers(Operation::Ack),
        2,
        [0, 0, 0, 1, 0, 1],
    ),
    (
        "changes hang",
        |store| store.hold_answers(Operation::Change),
        2,
        [1, 0, 0, 0, 0, 1],
    ),
    (
        "waits hang",
        |store| store.hold_answers(Operation::Wait),
        4,
        [1, 0, 0, 1, 0, 0],
    ),
    (
        "leases hang",
        |store| store.hold_answers(Operation::Lease),
        4,
        [1, 0, 0, 1, 0, 0],
    ),
];

type DefaultWorker = Worker<String, fn(String, Context) -> Ready<Result<(), Failure>>>;

/// Kubernetes kills a pod 30 seconds after it asked for the shutdown.
const _: () = {
    let deadline = DefaultWorker::DEFAULT_SHUTDOWN_DEADLINE.as_secs();
    assert!(deadline + DefaultWorker::SETTLE_GRACE.as_secs() < 30);
};

pub(super) async fn a_store_that_is_away_delays_it_by_the_grace(fixture: Fixture) {
    for (way, go_away, concurrency, expected) in AWAY {
        let endless = ["finishes", "hangs"].map(|id| msg(id).with_visibility_timeout(HOUR));
        fixture.store(&endless).await;
        let worker = worker(&fixture, |text: String, context: Context| async move {
            context.stopping().await;
            if text == "hangs" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Failure>(())
        });
        let worker = worker
            .with_concurrency(concurrency)
            .with_shutdown_deadline(SECOND * 3);
        let stop = fixture.clock.now() + SECOND * 10;
        let shutdown = async {
            fixture.clock.sleep_until(stop).await;
            go_away(&fixture.faulty);
            fixture
                .store(&[msg("later").with_visibility_timeout(HOUR)])
                .await;
            fixture.run_tasks().await;
        };
        let report = worker.run(shutdown).await.unwrap();
        assert_eq!(counts(report), expected, "{way}");
        let took = fixture.clock.now().duration_since(stop).unwrap().as_secs();
        assert!(took <= 3 + 4, "{way}: it took {took} s");
        fixture.faulty.clear();
        fixture.faulty.release();
        fixture.run_tasks().await;
        let later = fixture.attempts_elsewhere().await.remove("later");
        assert_eq!(later, Some(1), "{way}: no attempt counts");
        fixture.purge().await;
    }
}
