//! Names of all metrics.
//!
//! To collect them, install a recorder for the [`metrics`](https://docs.rs/metrics) crate. Every
//! metric has the label `queue`. Durations are in seconds. Without the feature `metrics`, which is on
//! by default, nothing is recorded.
//!
//! The [`Queue`](crate::Queue) handle counts its calls, so you need no listener or worker. If you
//! repeat a failed ack and it returns `Lost`, it counts as lost. A listener counts only the failed
//! call then ([`STORE_ERRORS`]), because that call may have taken effect. Calls in a transaction count
//! when they return, also if the transaction is aborted later.

use std::time::Duration;

use super::recorder::{Counter, Label, count, label, observe, set};
use crate::{EnqueueOutcome, Error, LeaseAction, LeaseOutcome, QueueName, QueueStats};

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
/// Counter: errors of the store in calls of a listener, by `operation` and `kind`
/// ([`ErrorKind::as_str`](crate::ErrorKind::as_str)).
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

fn label_of(queue: &QueueName) -> Label {
    label("queue", queue.shared())
}

fn add(name: &'static str, queue: &QueueName, by: usize) {
    if by > 0 {
        count(name, vec![label_of(queue)], by);
    }
}

/// Counters of the calls that an application makes for each message.
#[derive(Debug)]
pub(crate) struct Counters {
    enqueued: Counter,
    duplicates: Counter,
    leased: Counter,
    acked: Counter,
    settled_lost: Counter,
}

impl Counters {
    pub(crate) fn new(queue: &QueueName) -> Self {
        let counter = |name| Counter::new(name, vec![label_of(queue)]);
        Self {
            enqueued: counter(ENQUEUED),
            duplicates: counter(DUPLICATES),
            leased: counter(LEASED),
            acked: counter(ACKED),
            settled_lost: counter(SETTLED_LOST),
        }
    }

    pub(crate) fn enqueued(&self, outcomes: &[EnqueueOutcome]) {
        let is_stored = |outcome: &&EnqueueOutcome| **outcome == EnqueueOutcome::Stored;
        let stored = outcomes.iter().filter(is_stored).count();
        self.enqueued.increment(stored);
        self.duplicates.increment(outcomes.len() - stored);
    }

    pub(crate) fn leased(&self, count: usize) {
        self.leased.increment(count);
    }

    pub(crate) fn acked(&self, outcomes: &[LeaseOutcome]) {
        let applied = count_applied(outcomes);
        self.acked.increment(applied);
        self.settled_lost.increment(outcomes.len() - applied);
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
    count(LEASES_LOST, vec![label_of(queue), label("why", why)], 1);
}

pub(crate) fn store_error(queue: &QueueName, error: &Error) {
    let labels = vec![
        label_of(queue),
        label("operation", error.operation()),
        label("kind", error.kind().as_str()),
    ];
    count(STORE_ERRORS, labels, 1);
}

pub(crate) fn time_in_queue(queue: &QueueName, time: Duration) {
    observe(TIME_IN_QUEUE, vec![label_of(queue)], time);
}

pub(crate) fn handling_time(queue: &QueueName, outcome: &'static str, time: Duration) {
    let labels = vec![label_of(queue), label("outcome", outcome)];
    observe(HANDLING_TIME, labels, time);
}

pub(crate) fn depth(queue: &QueueName, stats: &QueueStats) {
    let states = [
        ("ready", stats.ready),
        ("delayed", stats.delayed),
        ("leased", stats.leased),
        ("dead", stats.dead),
    ];
    for (state, count) in states {
        let labels = vec![label_of(queue), label("state", state)];
        set(DEPTH, labels, count as f64);
    }
    let oldest = stats.oldest_ready.unwrap_or_default();
    set(OLDEST_READY, vec![label_of(queue)], oldest.as_secs_f64());
}
