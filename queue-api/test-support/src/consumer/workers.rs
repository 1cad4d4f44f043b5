//! Several workers under one shutdown.

use queue_api::{
    ErrorKind, Queue,
    consumer::{Context, Failure, ListenOptions, Worker, Workers},
};

use super::{
    fixture::{Fixture, SECOND, msg},
    worker::{acking_worker, counts, worker},
};

/// A worker of another queue and another type. Its handler takes ten seconds.
async fn worker_of_numbers(
    fixture: &Fixture,
) -> Worker<u32, impl queue_api::consumer::Handler<u32> + use<>> {
    let queue = Queue::new(fixture.queue.backend().clone(), "numbers").unwrap();
    queue.typed().enqueue(&1).await.unwrap();
    let (options, clock) = (ListenOptions::new(1), fixture.clock.clone());
    let handler = move |_: u32, _: Context| {
        let clock = clock.clone();
        async move {
            clock.sleep_until(clock.now() + SECOND * 10).await;
            Ok::<_, Failure>(())
        }
    };
    Worker::new(queue, handler).with_listen_options(options.with_clock(fixture.clock.clone()))
}

pub(super) async fn they_run_together_and_shut_down_together(fixture: Fixture) {
    fixture.store_many(20).await;
    let workers = Workers::new()
        .with(acking_worker(&fixture))
        .with(worker_of_numbers(&fixture).await);
    let stop = fixture.clock.now() + SECOND * 5;
    let outcomes = workers.run(fixture.clock.sleep_until(stop)).await;
    let reports: Vec<_> = outcomes
        .into_iter()
        .map(|one| counts(one.unwrap()))
        .collect();
    assert_eq!(reports, [[20, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]);
    assert_eq!(fixture.seconds(), 10, "the second one's handler may finish");
}

pub(super) async fn the_first_failure_ends_all(fixture: Fixture) {
    fixture.store_many(1).await;
    let refused = worker(&fixture, |_: String, _: Context| async {
        Ok::<_, Failure>(())
    });
    let workers = Workers::new()
        .with(worker_of_numbers(&fixture).await)
        .with(refused.with_concurrency(0))
        .with(acking_worker(&fixture));
    let outcomes = workers.run(std::future::pending::<()>()).await;
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let stats = fixture.stats().await;
    assert_eq!(stats.leased, 0, "they shut down gracefully");
}

pub(super) async fn a_shutdown_that_panics_is_an_error_of_each(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let workers = Workers::new()
        .with(acking_worker(&fixture))
        .with(worker_of_numbers(&fixture).await);
    let shutdown = async {
        fixture.advance(SECOND).await;
        panic!("of the signal")
    };
    let outcomes = workers.run(shutdown).await;
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains("panicked: of the signal"), "{text}");
        assert!(text.contains("1 handled"), "{text}");
    }
}

pub(super) async fn without_workers_it_waits_for_the_shutdown(fixture: Fixture) {
    let stop = fixture.clock.now() + SECOND * 5;
    let outcomes = Workers::new().run(fixture.clock.sleep_until(stop)).await;
    assert!(outcomes.is_empty());
    assert_eq!(fixture.seconds(), 5);
}
