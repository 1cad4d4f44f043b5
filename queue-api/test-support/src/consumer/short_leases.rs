//! Messages whose visibility timeout is below a round trip to the store.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{
    Clock, Delivery, LeaseOptions, Queue, QueueBackend, QueueName, Result, async_trait,
    consumer::{Context, Failure, Handler, Worker},
};

use super::{
    fixture::{Fixture, SECOND, msg},
    worker::{Text, counts, worker},
};
use crate::{Answer, Delegate, Delegated, Operation};

/// Message ids and attempts.
type Attempts = Arc<Mutex<BTreeSet<(String, u32)>>>;

/// A store that is a network away. It records what it delivers.
#[derive(Debug)]
struct Slow {
    inner: Arc<dyn QueueBackend>,
    clock: Arc<dyn Clock>,
    round_trip: Duration,
    delivered: Attempts,
}

impl Slow {
    async fn travel(&self) {
        let arrival = self.clock.now() + self.round_trip / 2;
        self.clock.sleep_until(arrival).await;
    }
}

#[async_trait]
impl Delegate for Slow {
    type Inner = dyn QueueBackend;

    fn inner(&self) -> &dyn QueueBackend {
        &*self.inner
    }

    async fn around<T: Answer>(
        &self,
        _operation: Operation,
        _size: usize,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.travel().await;
        let answer = call.await;
        self.travel().await;
        answer
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let lease = async {
            let deliveries = self.inner.lease(queue, options).await?;
            let mut delivered = self.delivered.lock().unwrap();
            let attempts = deliveries
                .iter()
                .map(|one| (one.id.to_string(), one.attempt));
            delivered.extend(attempts);
            Ok(deliveries)
        };
        self.around(Operation::Lease, 0, lease).await
    }
}

/// Workers of one queue in a store that is `round_trip` away.
struct Remote {
    queue: Queue,
    delivered: Attempts,
    handled: Attempts,
    clock: Arc<dyn Clock>,
}

impl Remote {
    fn new(fixture: &Fixture, round_trip: Duration) -> Self {
        let delivered = Attempts::default();
        let slow = Slow {
            inner: fixture.queue.backend().clone(),
            clock: fixture.clock.clone(),
            round_trip,
            delivered: delivered.clone(),
        };
        Self {
            queue: Queue::new(Arc::new(Delegated(slow)), "q").unwrap(),
            delivered,
            handled: Attempts::default(),
            clock: fixture.clock.clone(),
        }
    }

    /// Its handler takes `time`.
    fn worker(
        &self,
        fixture: &Fixture,
        time: Duration,
    ) -> Worker<String, impl Handler<String>, Text> {
        let (handled, clock) = (self.handled.clone(), self.clock.clone());
        let mut remote = fixture.clone();
        remote.queue = self.queue.clone();
        worker(&remote, move |text: String, context: Context| {
            handled.lock().unwrap().insert((text, context.attempt()));
            let clock = clock.clone();
            async move {
                clock.sleep_until(clock.now() + time).await;
                Ok::<_, Failure>(())
            }
        })
    }
}

pub(super) async fn each_is_handled_once_by_one_worker(fixture: Fixture) {
    let millis = Duration::from_millis;
    let mut problems = Vec::new();
    for visibility in [
        Duration::ZERO,
        millis(1),
        millis(2),
        millis(150),
        SECOND,
        SECOND * 4,
        SECOND * 6,
        SECOND * 30,
    ] {
        for round_trip in [
            Duration::ZERO,
            millis(4),
            millis(100),
            SECOND * 3,
            SECOND * 7,
            // The longest call of `Batching` on a backend with the default operation timeout.
            SECOND * 31,
        ] {
            for time in [Duration::ZERO, millis(1), SECOND * 20] {
                let remote = Remote::new(&fixture, round_trip);
                let messages = ["a", "b", "c"].map(|id| {
                    let message = msg(id).with_max_attempts(1);
                    message.with_visibility_timeout(visibility)
                });
                fixture.store(&messages).await;
                let stop = fixture.clock.now() + SECOND * 60 + round_trip * 10;
                let worker = remote
                    .worker(&fixture, time)
                    .with_shutdown_deadline(SECOND * 600);
                let report = worker.run(fixture.clock.sleep_until(stop)).await.unwrap();
                let handled = remote.handled.lock().unwrap().len();
                if (counts(report), handled) != ([3, 0, 0, 0, 0, 0], 3) {
                    problems.push(format!(
                        "visibility timeout {visibility:?}, round trip {round_trip:?}, \
                         handler {time:?}: {handled} reached a handler; {report}"
                    ));
                }
                fixture.purge().await;
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

pub(super) async fn each_attempt_that_counts_reaches_a_handler_of_two_workers(fixture: Fixture) {
    let millis = Duration::from_millis;
    let mut problems = Vec::new();
    for max_attempts in [1, 3] {
        for (visibility, round_trip) in [
            (Duration::ZERO, millis(4)),
            (millis(1), millis(4)),
            (millis(1), millis(100)),
            (SECOND * 6, SECOND * 7),
            (SECOND * 30, SECOND * 31),
        ] {
            let remote = Remote::new(&fixture, round_trip);
            let messages: Vec<_> = (0..20)
                .map(|n| msg(&n.to_string()).with_max_attempts(max_attempts))
                .map(|message| message.with_visibility_timeout(visibility))
                .collect();
            fixture.store(&messages).await;
            let stop = fixture.clock.now() + SECOND * 60 + round_trip * 60;
            let workers = [(); 2].map(|()| {
                let worker = remote.worker(&fixture, millis(30));
                worker.with_shutdown_deadline(SECOND * 600)
            });
            let running = workers
                .iter()
                .map(|worker| worker.run(fixture.clock.sleep_until(stop)));
            futures::future::try_join_all(running).await.unwrap();
            let delivered = remote.delivered.lock().unwrap().clone();
            let handled = remote.handled.lock().unwrap().clone();
            let unseen: Vec<_> = delivered.difference(&handled).collect();
            if !unseen.is_empty() || delivered.len() < 20 {
                problems.push(format!(
                    "max_attempts {max_attempts}, visibility timeout {visibility:?}, round trip \
                     {round_trip:?}: {} of {} attempts reached no handler",
                    unseen.len(),
                    delivered.len()
                ));
            }
            assert_eq!(fixture.stats().await.leased, 0);
            fixture.purge().await;
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
