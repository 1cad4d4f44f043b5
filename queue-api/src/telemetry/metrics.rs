//! Names of all metrics.
//!
//! To collect them, install a recorder for the [`metrics`](https://docs.rs/metrics) crate. Every
//! metric has the label `queue`. Durations are in seconds.
//!
//! The [`Queue`](crate::Queue) handle counts its calls, so you need no listener or worker. If you
//! repeat a failed ack and it returns `Lost`, it counts as lost. A listener counts only the failed
//! call then ([`STORE_ERRORS`]), because that call may have taken effect.

use std::time::Duration;

use ::metrics::{Key, Label, Level, Metadata, counter, gauge, histogram, with_recorder};

use crate::{
    EnqueueOutcome, Error, LeaseAction, LeaseOutcome, QueueName, QueueStats, catch_panic::isolated,
};

/// Value of the attribute `messaging.system` in spans and log lines.
pub const SYSTEM: &str = "queue_api";

/// Counter: messages stored by an enqueue, without duplicates.
pub const ENQUEUED: &str = "queue_messages_enqueued_total";
/// Counter: enqueued messages whose id the queue already had.
pub const DUPLICATES: &str = "queue_messages_duplicate_total";
/// Counter: deliveries.
pub const LEASED: &str = "queue_messages_leased_total";
/// Counter: acked messages.
pub const ACKED: &str = "queue_messages_acked_total";
/// Counter: nacked messages.
pub const NACKED: &str = "queue_messages_nacked_total";
/// Counter: released messages.
pub const RELEASED: &str = "queue_messages_released_total";
/// Counter: messages dead-lettered by a consumer. Messages that become dead letters because they
/// have no attempts left are only counted in the gauge [`DEPTH`].
pub const DEAD_LETTERED: &str = "queue_messages_dead_lettered_total";
/// Counter: extended leases, by a listener or by the application.
pub const RENEWED: &str = "queue_leases_renewed_total";
/// Counter: acks, nacks, releases and dead-letter calls whose outcome was `Lost`.
pub const SETTLED_LOST: &str = "queue_leases_settled_lost_total";
/// Counter: leases of a listener that ended before they were settled, by `why`
/// (a [`LeaseEnd`](crate::consumer::LeaseEnd)).
pub const LEASES_LOST: &str = "queue_leases_lost_total";
/// Counter: errors of the store in calls of a listener, by `operation` and `kind`.
pub const STORE_ERRORS: &str = "queue_store_errors_total";
/// Histogram: time from the enqueue to the lease, including delay and earlier attempts, by the
/// backend's clock. Recorded by listeners.
pub const TIME_IN_QUEUE: &str = "queue_message_time_in_queue_seconds";
/// Histogram: running time of a worker's handler, by `outcome` (`handled`, `failed`,
/// `cancelled`).
pub const HANDLING_TIME: &str = "queue_message_handling_seconds";
/// Gauge: messages by `state` (`ready`, `delayed`, `leased`, `dead`). Every call of
/// [`Queue::stats`](crate::Queue::stats) sets it.
pub const DEPTH: &str = "queue_depth";
/// Gauge: age of the oldest ready message. Set like [`DEPTH`].
pub const OLDEST_READY: &str = "queue_oldest_ready_seconds";

fn label(queue: &QueueName) -> Label {
    Label::new("queue", queue.shared())
}

/// Calls the recorder. It is code of the application, and must not stop a queue.
fn record(call: impl FnOnce()) {
    isolated("the metrics recorder", call);
}

fn add(name: &'static str, queue: &QueueName, count: usize) {
    if count > 0 {
        record(|| counter!(name, vec![label(queue)]).increment(count as u64));
    }
}

/// Counters of the calls that an application makes for each message. Their keys are created once,
/// because creating a key can cost more than the call itself on a backend in memory.
#[derive(Debug)]
pub(crate) struct Counters {
    enqueued: Key,
    duplicates: Key,
    leased: Key,
    acked: Key,
    settled_lost: Key,
}

impl Counters {
    pub(crate) fn new(queue: &QueueName) -> Self {
        let key = |name| Key::from_parts(name, vec![label(queue)]);
        Self {
            enqueued: key(ENQUEUED),
            duplicates: key(DUPLICATES),
            leased: key(LEASED),
            acked: key(ACKED),
            settled_lost: key(SETTLED_LOST),
        }
    }

    pub(crate) fn enqueued(&self, outcomes: &[EnqueueOutcome]) {
        let is_stored = |outcome: &&EnqueueOutcome| **outcome == EnqueueOutcome::Stored;
        let stored = outcomes.iter().filter(is_stored).count();
        increment(&self.enqueued, stored);
        increment(&self.duplicates, outcomes.len() - stored);
    }

    pub(crate) fn leased(&self, count: usize) {
        increment(&self.leased, count);
    }

    pub(crate) fn acked(&self, outcomes: &[LeaseOutcome]) {
        let applied = count_applied(outcomes);
        increment(&self.acked, applied);
        increment(&self.settled_lost, outcomes.len() - applied);
    }
}

/// Gets the recorder on each call, because it can be installed at any time.
fn increment(key: &Key, by: usize) {
    static METADATA: Metadata<'static> =
        Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
    if by > 0 {
        record(|| {
            with_recorder(|recorder| {
                recorder
                    .register_counter(key, &METADATA)
                    .increment(by as u64)
            });
        });
    }
}

pub(crate) fn acked(queue: &QueueName, outcomes: &[LeaseOutcome]) {
    let applied = count_applied(outcomes);
    add(ACKED, queue, applied);
    add(SETTLED_LOST, queue, outcomes.len() - applied);
}

pub(crate) fn changed<'a>(
    queue: &QueueName,
    changes: impl Iterator<Item = (&'a LeaseAction, LeaseOutcome)>,
) {
    let [mut renewed, mut nacked, mut released, mut dead, mut lost] = [0; 5];
    for (action, outcome) in changes {
        match (outcome, action) {
            (LeaseOutcome::Lost, LeaseAction::Extend(_)) => {}
            (LeaseOutcome::Lost, _) => lost += 1,
            (LeaseOutcome::Applied, LeaseAction::Extend(_)) => renewed += 1,
            (LeaseOutcome::Applied, LeaseAction::Nack { .. }) => nacked += 1,
            (LeaseOutcome::Applied, LeaseAction::Release) => released += 1,
            (LeaseOutcome::Applied, LeaseAction::DeadLetter { .. }) => dead += 1,
        }
    }
    add(RENEWED, queue, renewed);
    add(NACKED, queue, nacked);
    add(RELEASED, queue, released);
    add(DEAD_LETTERED, queue, dead);
    add(SETTLED_LOST, queue, lost);
}

fn count_applied(outcomes: &[LeaseOutcome]) -> usize {
    outcomes
        .iter()
        .filter(|outcome| **outcome == LeaseOutcome::Applied)
        .count()
}

pub(crate) fn lease_lost(queue: &QueueName, why: &'static str) {
    let labels = vec![label(queue), Label::from_static_parts("why", why)];
    record(|| counter!(LEASES_LOST, labels).increment(1));
}

pub(crate) fn store_error(queue: &QueueName, error: &Error) {
    let labels = vec![
        label(queue),
        Label::from_static_parts("operation", error.operation()),
        Label::new("kind", format!("{:?}", error.kind())),
    ];
    record(|| counter!(STORE_ERRORS, labels).increment(1));
}

pub(crate) fn time_in_queue(queue: &QueueName, time: Duration) {
    record(|| histogram!(TIME_IN_QUEUE, vec![label(queue)]).record(time));
}

pub(crate) fn handling_time(queue: &QueueName, outcome: &'static str, time: Duration) {
    let outcome = Label::from_static_parts("outcome", outcome);
    record(|| histogram!(HANDLING_TIME, vec![label(queue), outcome]).record(time));
}

pub(crate) fn depth(queue: &QueueName, stats: &QueueStats) {
    let states = [
        ("ready", stats.ready),
        ("delayed", stats.delayed),
        ("leased", stats.leased),
        ("dead", stats.dead),
    ];
    for (state, count) in states {
        let state = Label::from_static_parts("state", state);
        record(|| gauge!(DEPTH, vec![label(queue), state]).set(count as f64));
    }
    let oldest = stats.oldest_ready.unwrap_or_default();
    record(|| gauge!(OLDEST_READY, vec![label(queue)]).set(oldest.as_secs_f64()));
}
