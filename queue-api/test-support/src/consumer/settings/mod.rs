//! Every duration, count and size that an application can set, at the ends of its range.

mod rows;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use futures::{FutureExt, future::LocalBoxFuture};
use queue_api::{
    Clock, ErrorKind, Limits, NewMessage, Queue, QueueBackend, Result, async_trait,
    consumer::{Context, Failure, ListenOptions, RetryPolicy, Worker},
};

use self::rows::{COUNTS, Called, ROWS, Row, Setup, TIMES, end_of_time};
use super::{
    fixture::{Fixture, HOUR, SECOND},
    worker::Text,
};
use crate::{Delegate, Delegated};

/// A backend with other limits.
#[derive(Debug)]
struct Limited {
    inner: Arc<dyn QueueBackend>,
    limits: Limits,
}

impl Delegate for Limited {
    type Inner = dyn QueueBackend;

    fn inner(&self) -> &dyn QueueBackend {
        &*self.inner
    }

    fn limits(&self) -> Limits {
        self.limits.clone()
    }
}

/// A clock that shows `starts_at` at `started` of another one.
#[derive(Debug)]
struct Shifted {
    clock: Arc<dyn Clock>,
    started: SystemTime,
    starts_at: SystemTime,
}

#[async_trait]
impl Clock for Shifted {
    fn now(&self) -> SystemTime {
        let elapsed = self.clock.now().duration_since(self.started);
        self.starts_at + elapsed.unwrap_or_default()
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        let left = deadline.duration_since(self.now()).unwrap_or_default();
        let left = left.min(HOUR * 24 * 365 * 100);
        self.clock.sleep_until(self.clock.now() + left).await;
    }
}

/// Runs a worker for a minute. The handler is called, unless the message's delay is longer.
async fn worked(fixture: &Fixture, set: impl FnOnce(&mut Setup)) -> Result<()> {
    let mut to = Setup {
        message: NewMessage::new("text"),
        options: ListenOptions::new(4).with_clock(fixture.clock.clone()),
        policy: RetryPolicy::default(),
        retry_after: None,
        fails: false,
        time_limit: None,
        shutdown_deadline: SECOND,
        limits: Limits::STANDARD,
        clock_starts_at: None,
    };
    set(&mut to);
    if let Some(starts_at) = to.clock_starts_at {
        to.options = to.options.with_clock(Arc::new(Shifted {
            clock: fixture.clock.clone(),
            started: fixture.clock.now(),
            starts_at,
        }));
    }
    let inner = fixture.queue.backend().clone();
    let limits = to.limits;
    let queue = Queue::new(Arc::new(Delegated(Limited { inner, limits })), "q")?;
    queue.enqueue(&to.message).await?;
    let is_late = to.message.delay.is_some_and(|delay| delay > SECOND * 60);
    let calls = Arc::new(AtomicUsize::new(0));
    let called = calls.clone();
    let handler = move |_: String, _: Context| {
        called.fetch_add(1, Ordering::Relaxed);
        let (fails, retry_after) = (to.fails, to.retry_after);
        async move {
            match retry_after {
                Some(delay) => Err(Failure::retry_after(delay, "by the test")),
                None if fails => Err(Failure::retry("by the test")),
                None => Ok(()),
            }
        }
    };
    let mut worker = Worker::new(queue, handler)
        .with_codec(Text)
        .with_listen_options(to.options)
        .with_retry_policy(to.policy)
        .with_shutdown_deadline(to.shutdown_deadline);
    if let Some(limit) = to.time_limit {
        worker = worker.with_time_limit(limit);
    }
    let stop = fixture.clock.now() + SECOND * 60;
    worker.run(fixture.clock.sleep_until(stop)).await?;
    assert_eq!(fixture.clock.now(), stop, "it ended early or late");
    let delayed = fixture.stats().await.delayed;
    let calls = calls.load(Ordering::Relaxed);
    match is_late {
        true => assert_eq!((delayed, calls), (1, 0)),
        false => assert!(calls > 0, "the handler was not called"),
    }
    Ok(())
}

/// What is wrong with an outcome, if anything is.
async fn problem(
    fixture: &Fixture,
    outcome: impl Future<Output = Result<()>>,
    expected: &str,
) -> Option<String> {
    let problem = match AssertUnwindSafe(outcome).catch_unwind().await {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("panicked: {}", text.unwrap_or_default()))
        }
        Ok(Ok(())) if expected.is_empty() => None,
        Ok(Ok(())) => Some("worked".to_owned()),
        Ok(Err(error)) => {
            let right = error.kind() == ErrorKind::InvalidInput
                && !expected.is_empty()
                && error.to_string().contains(expected);
            (!right).then(|| format!("{error:?}"))
        }
    };
    fixture.purge().await;
    problem
}

pub(super) async fn every_setting_works_or_is_refused_at_the_ends_of_its_range(fixture: Fixture) {
    let called = || Called {
        queue: fixture.queue.clone(),
        admin: fixture.admin.clone(),
        clock: fixture.clock.clone(),
    };
    let clocks = [UNIX_EPOCH - SECOND, UNIX_EPOCH, end_of_time()];
    let mut problems = Vec::new();
    for (name, row) in ROWS {
        let outcomes: Vec<(String, LocalBoxFuture<'_, Result<()>>, &str)> = match row {
            Row::Time(set, expected) => std::iter::zip(TIMES, *expected)
                .map(|(value, expected)| {
                    let outcome = worked(&fixture, move |to| set(to, value));
                    (format!("{value:?}"), outcome.boxed_local(), expected)
                })
                .collect(),
            Row::Count(set, expected) => std::iter::zip(COUNTS, *expected)
                .map(|(value, expected)| {
                    let outcome = worked(&fixture, move |to| set(to, value));
                    (value.to_string(), outcome.boxed_local(), expected)
                })
                .collect(),
            Row::Clock(set, expected) => std::iter::zip(clocks, *expected)
                .map(|(value, expected)| {
                    let outcome = worked(&fixture, move |to| set(to, value));
                    (format!("{value:?}"), outcome.boxed_local(), expected)
                })
                .collect(),
            Row::CallTime(call, expected) => std::iter::zip(TIMES, *expected)
                .map(|(value, expected)| {
                    let outcome = async move { call(called(), value).await };
                    (format!("{value:?}"), outcome.boxed_local(), expected)
                })
                .collect(),
            Row::CallCount(call, expected) => std::iter::zip(COUNTS, *expected)
                .map(|(value, expected)| {
                    let outcome = async move { call(called(), value).await };
                    (value.to_string(), outcome.boxed_local(), expected)
                })
                .collect(),
        };
        for (value, outcome, expected) in outcomes {
            if let Some(problem) = problem(&fixture, outcome, expected).await {
                problems.push(format!("{name} at {value}: {problem}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
