//! Metrics and log lines of a listener.

use std::error::Error as StdError;

use crate::{Delivery, Error, QueueName, Receipt, metrics};

/// A call of the listener failed. The listener repeats it.
pub(crate) fn store_error(queue: &QueueName, error: &Error) {
    metrics::store_error(queue, error);
    tracing::warn!(
        messaging.system = metrics::SYSTEM,
        messaging.destination.name = %queue,
        error.type = ?error.kind(),
        error = error as &dyn StdError,
        "the store failed; the listener repeats the call"
    );
}

/// A lease ended before it was settled, perhaps before the application received it.
pub(crate) fn lease_lost(queue: &QueueName, receipt: &Receipt, why: &'static str) {
    metrics::lease_lost(queue, why);
    tracing::warn!(
        messaging.system = metrics::SYSTEM,
        messaging.destination.name = %queue,
        %receipt,
        why,
        "a lease ended before it was settled; another consumer may get the message"
    );
}

/// The application received a lease.
pub(crate) fn handed_out(queue: &QueueName, delivery: &Delivery) {
    // Both times are by the backend's clock, so a wrong local clock does not matter.
    let leased_at = delivery.lease_expires_at - delivery.visibility_timeout;
    let waited = leased_at.duration_since(delivery.enqueued_at);
    metrics::time_in_queue(queue, waited.unwrap_or_default());
}
