//! All settings, and what comes of them at the ends of their ranges.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::future::BoxFuture;
use queue_api::{
    Clock, LeaseOptions, LeaseOutcome, Limits, ManualClock, NewMessage, PageOptions, Queue,
    QueueAdmin, Receipt, Result, TokioClock,
    consumer::{Context, Failure, Lease, ListenOptions, Listener, Retry, RetryPolicy, Worker},
};
use tokio::sync::oneshot;

use crate::consumer::{
    fixture::{HOUR, SECOND},
    worker::Text,
};

/// What a run of a worker is set up with.
pub(super) struct Setup {
    pub(super) message: NewMessage,
    pub(super) options: ListenOptions,
    pub(super) policy: RetryPolicy,
    /// The handler fails and asks for this delay.
    pub(super) retry_after: Option<Duration>,
    /// The handler fails, and the policy decides.
    pub(super) fails: bool,
    pub(super) time_limit: Option<Duration>,
    pub(super) shutdown_deadline: Duration,
    pub(super) limits: Limits,
    pub(super) clock_starts_at: Option<SystemTime>,
}

/// Sets something to a value, and the outcome: an empty text if the worker handles the message,
/// or else a part of the text of the `InvalidInput` error.
pub(super) enum Row {
    /// At each of [`TIMES`].
    Time(fn(&mut Setup, Duration), [&'static str; 6]),
    /// At 0, 1 and the largest value.
    Count(fn(&mut Setup, usize), [&'static str; 3]),
    /// Before 1970, at 1970, and far in the future.
    Clock(fn(&mut Setup, SystemTime), [&'static str; 3]),
    /// A call with a duration at each of [`TIMES`].
    CallTime(fn(Called, Duration) -> Call, [&'static str; 6]),
    /// A call with a count at 0, 1 and the largest value.
    CallCount(fn(Called, usize) -> Call, [&'static str; 3]),
}

pub(super) type Call = BoxFuture<'static, Result<()>>;

pub(super) struct Called {
    pub(super) queue: Queue,
    pub(super) admin: Arc<dyn QueueAdmin>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Called {
    async fn enqueue(&self) {
        self.queue.enqueue(&NewMessage::new("text")).await.unwrap();
    }

    /// The receipt of a delivery.
    async fn receipt(&self) -> Receipt {
        self.enqueue().await;
        let delivery = self.queue.lease().await.unwrap();
        delivery.expect("a message is ready").receipt
    }

    async fn lease(&self) -> (Listener, Lease) {
        self.enqueue().await;
        let options = ListenOptions::new(1).with_clock(self.clock.clone());
        let mut listener = self.queue.listen(options).unwrap();
        let lease = listener.next().await.expect("not stopped");
        (listener, lease)
    }

    /// The message is delayed, if `delay` is long enough to see it.
    async fn is_delayed(&self, delay: Duration) {
        let stats = self.queue.stats().await.unwrap();
        assert_eq!(stats.leased, 0, "{stats:?}");
        assert_eq!(stats.ready + stats.delayed, 1, "{stats:?}");
        if delay > HOUR {
            assert_eq!(stats.delayed, 1, "{stats:?}");
        }
    }
}

fn applied(outcome: LeaseOutcome) {
    assert_eq!(outcome, LeaseOutcome::Applied);
}

/// With the longest visibility timeout and the longest delay.
pub(super) const TIMES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Limits::STANDARD.max_visibility_timeout,
    Limits::STANDARD.max_delay,
    Duration::MAX,
];
pub(super) const COUNTS: [usize; 3] = [0, 1, usize::MAX];

const WORKS: [&str; 6] = [""; 6];
const WORKS_3: [&str; 3] = [""; 3];
const VISIBILITY: [&str; 6] = [
    "",
    "",
    "",
    "",
    "visibility timeout is 31622400s; it must be at most 604800s",
    "visibility timeout is 18446744073709551615.999999999s; it must be at most 604800s",
];
/// A listener keeps its leases, so it takes no timeout of 0.
const LISTENERS_VISIBILITY: [&str; 6] = {
    let mut texts = VISIBILITY;
    texts[0] = "visibility timeout is 0ns; it must be longer than 0";
    texts
};
const DELAY: [&str; 6] = [
    "",
    "",
    "",
    "",
    "",
    "delay is 18446744073709551615.999999999s; it must be at most 31622400s",
];

pub(super) const ROWS: &[(&str, Row)] = &[
    (
        "NewMessage::with_visibility_timeout",
        Row::Time(
            |to, time| to.message.visibility_timeout = Some(time),
            VISIBILITY,
        ),
    ),
    (
        "NewMessage::with_delay",
        Row::Time(|to, time| to.message.delay = Some(time), DELAY),
    ),
    (
        "NewMessage::with_max_attempts",
        Row::Count(
            |to, count| to.message.max_attempts = Some(u32::try_from(count).unwrap_or(u32::MAX)),
            ["max_attempts is 0; it must be at least 1", "", ""],
        ),
    ),
    (
        "ListenOptions::with_concurrency",
        Row::Count(
            |to, count| to.options = to.options.clone().with_concurrency(count),
            ["concurrency is 0; it must be at least 1", "", ""],
        ),
    ),
    (
        "ListenOptions::with_visibility_timeout",
        Row::Time(
            |to, time| to.options = to.options.clone().with_visibility_timeout(time),
            LISTENERS_VISIBILITY,
        ),
    ),
    (
        "ListenOptions::with_max_lease_time",
        Row::Time(
            |to, time| to.options = to.options.clone().with_max_lease_time(time),
            WORKS,
        ),
    ),
    (
        "ListenOptions::with_clock",
        Row::Clock(|to, time| to.clock_starts_at = Some(time), WORKS_3),
    ),
    (
        "Worker::with_time_limit",
        Row::Time(|to, time| to.time_limit = Some(time), WORKS),
    ),
    (
        "Worker::with_shutdown_deadline",
        Row::Time(|to, time| to.shutdown_deadline = time, WORKS),
    ),
    (
        "RetryPolicy::exponential, first",
        Row::Time(|to, time| fail(to, time, Duration::MAX), WORKS),
    ),
    (
        "RetryPolicy::exponential, max",
        Row::Time(|to, time| fail(to, SECOND, time), WORKS),
    ),
    (
        "RetryPolicy::exponential, first and max",
        Row::Time(|to, time| fail(to, time, time), WORKS),
    ),
    (
        "Retry::After",
        Row::Time(
            |to, time| {
                to.fails = true;
                to.policy = RetryPolicy::custom(move |_| Retry::After(time));
            },
            WORKS,
        ),
    ),
    (
        "Failure::retry_after",
        Row::Time(|to, time| to.retry_after = Some(time), WORKS),
    ),
    (
        "Limits::max_batch",
        Row::Count(
            // Its type excludes 0.
            |to, count| to.limits.max_batch = NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN),
            WORKS_3,
        ),
    ),
    (
        "Limits::max_payload_bytes",
        Row::Count(
            |to, count| to.limits.max_payload_bytes = count,
            [
                "payload size is 4 bytes; it must be at most 0",
                "payload size is 4 bytes; it must be at most 1",
                "",
            ],
        ),
    ),
    (
        "Limits::max_header_bytes",
        Row::Count(|to, count| to.limits.max_header_bytes = count, WORKS_3),
    ),
    (
        "Limits::max_visibility_timeout",
        Row::Time(
            |to, time| to.limits.max_visibility_timeout = time,
            [
                "visibility timeout is 30s; it must be at most 0ns",
                "visibility timeout is 30s; it must be at most 1ns",
                "visibility timeout is 30s; it must be at most 1ms",
                "",
                "",
                "",
            ],
        ),
    ),
    (
        "Limits::max_delay",
        Row::Time(|to, time| to.limits.max_delay = time, WORKS),
    ),
    (
        "LeaseOptions::with_max_messages",
        Row::CallCount(
            |to, count| {
                Box::pin(async move {
                    to.queue.lease_batch(&LeaseOptions::new(count)).await?;
                    Ok(())
                })
            },
            ["max_messages is 0; it must be at least 1", "", ""],
        ),
    ),
    (
        "LeaseOptions::with_visibility_timeout",
        Row::CallTime(
            |to, time| {
                let options = LeaseOptions::new(1).with_visibility_timeout(time);
                Box::pin(async move { to.queue.lease_batch(&options).await.map(drop) })
            },
            VISIBILITY,
        ),
    ),
    (
        "Queue::extend",
        Row::CallTime(
            |to, time| {
                Box::pin(async move {
                    let receipt = to.receipt().await;
                    applied(to.queue.extend(&receipt, time).await?);
                    Ok(())
                })
            },
            VISIBILITY,
        ),
    ),
    (
        "Queue::nack",
        Row::CallTime(
            |to, time| {
                Box::pin(async move {
                    let receipt = to.receipt().await;
                    applied(to.queue.nack(&receipt, time).await?);
                    to.is_delayed(time).await;
                    Ok(())
                })
            },
            DELAY,
        ),
    ),
    (
        "Lease::extend",
        Row::CallTime(
            |to, time| {
                Box::pin(async move {
                    let (_listener, lease) = to.lease().await;
                    applied(lease.extend(time).await?);
                    Ok(())
                })
            },
            VISIBILITY,
        ),
    ),
    (
        "Lease::nack",
        Row::CallTime(
            |to, time| {
                Box::pin(async move {
                    let (_listener, lease) = to.lease().await;
                    applied(lease.nack(time).await?);
                    to.is_delayed(time).await;
                    Ok(())
                })
            },
            DELAY,
        ),
    ),
    (
        "Context::extend",
        Row::CallTime(
            |to, time| {
                Box::pin(async move {
                    to.enqueue().await;
                    let (extended, outcome) = oneshot::channel();
                    let extended = Mutex::new(Some(extended));
                    let handler = move |_: String, context: Context| {
                        let extended = extended.lock().unwrap().take();
                        async move {
                            let outcome = context.extend(time).await;
                            extended.expect("one delivery").send(outcome).unwrap();
                            Ok::<_, Failure>(())
                        }
                    };
                    let worker = Worker::new(to.queue, handler).with_codec(Text);
                    let options = ListenOptions::new(1).with_clock(to.clock);
                    let report = worker.with_listen_options(options).run_until_idle().await?;
                    assert_eq!(report.handled, 1, "{report}");
                    applied(outcome.await.expect("the handler was called")?);
                    Ok(())
                })
            },
            VISIBILITY,
        ),
    ),
    (
        "Queue::wait",
        Row::CallTime(
            |to, time| {
                Box::pin(async move {
                    let waiting = to.queue.wait(time);
                    // It need not end before the longest time.
                    let waited = tokio::time::timeout(HOUR, waiting).await;
                    waited.unwrap_or(Ok(()))
                })
            },
            WORKS,
        ),
    ),
    (
        "PageOptions::new",
        Row::CallCount(
            |to, count| {
                Box::pin(async move {
                    let page = PageOptions::new(count);
                    to.admin
                        .dead_letters(to.queue.name(), &page)
                        .await
                        .map(drop)
                })
            },
            WORKS_3,
        ),
    ),
    (
        "QueueAdmin::peek",
        Row::CallCount(
            |to, count| {
                Box::pin(async move { to.admin.peek(to.queue.name(), count).await.map(drop) })
            },
            WORKS_3,
        ),
    ),
    (
        "ManualClock::advance",
        Row::CallTime(
            |_, time| {
                Box::pin(async move {
                    let clock = ManualClock::new();
                    for _ in 0..2 {
                        let before = clock.now();
                        clock.advance(time);
                        assert!(clock.now() >= before, "the clock went back");
                    }
                    Ok(())
                })
            },
            WORKS,
        ),
    ),
    (
        "Clock::sleep_until",
        Row::CallTime(
            |_, time| {
                Box::pin(async move {
                    let clock = TokioClock::new();
                    let deadline = UNIX_EPOCH.checked_add(time);
                    let sleeping = clock.sleep_until(deadline.unwrap_or_else(end_of_time));
                    let _ = tokio::time::timeout(HOUR, sleeping).await;
                    Ok(())
                })
            },
            WORKS,
        ),
    ),
];

/// Half of what a `SystemTime` can hold.
pub(super) fn end_of_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1 << 62)
}

fn fail(to: &mut Setup, first: Duration, max: Duration) {
    to.fails = true;
    to.policy = RetryPolicy::exponential(first, max);
}
