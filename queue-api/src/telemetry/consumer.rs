//! Metrics and log lines of the consumer.

use std::{
    error::Error as StdError,
    time::{Duration, SystemTime},
};

use crate::{Delivery, Error, Queue, Receipt, consumer::LeaseEnd, metrics};

/// A call to the store failed, and the listener goes on.
pub(crate) fn store_error(queue: &Queue, error: &Error) {
    metrics::store_error(queue.name(), error);
    tracing::warn!(
        messaging.system = metrics::SYSTEM,
        messaging.destination.name = %queue.name(),
        error.type = ?error.kind(),
        // As `dyn Error`, so that subscribers print its sources.
        error = error as &dyn StdError,
        "a call to the store failed"
    );
}

/// A lease ended without settlement, perhaps before it was handed out.
pub(crate) fn lease_lost(queue: &Queue, receipt: &Receipt, why: LeaseEnd) {
    metrics::lease_lost(queue.name(), why);
    tracing::warn!(
        messaging.system = metrics::SYSTEM,
        messaging.destination.name = %queue.name(),
        %receipt,
        ?why,
        "a lease ended before its message was settled; another consumer may get the message"
    );
}

/// A lease was handed out.
pub(crate) fn handed_out(queue: &Queue, delivery: &Delivery) {
    metrics::time_in_queue(queue.name(), time_in_queue(delivery));
}

/// Uses only times of the backend's clock, so that a wrong clock of this machine does no harm.
fn time_in_queue(delivery: &Delivery) -> Duration {
    let leased_at: SystemTime = delivery.lease_expires_at - delivery.visibility_timeout;
    leased_at
        .duration_since(delivery.enqueued_at)
        .unwrap_or_default()
}
