//! Metrics and log lines of the consumer.

use crate::{
    Delivery, Error, QueueName, Receipt, catch_panic::isolated, metrics, trace::SUBSCRIBER,
};

/// A call to the store failed, and the listener goes on.
pub(crate) fn store_error(queue: &QueueName, error: &Error) {
    metrics::store_error(queue, error);
    isolated(SUBSCRIBER, || {
        tracing::warn!(
            messaging.system = metrics::SYSTEM,
            messaging.destination.name = %queue,
            error.type = ?error.kind(),
            // As `dyn Error`, so that subscribers print its sources.
            error = %format_args!("{error:#}"),
            "a call to the store failed"
        );
    });
}

/// A lease ended without settlement, perhaps before it was handed out.
pub(crate) fn lease_lost(queue: &QueueName, receipt: &Receipt, why: &'static str) {
    metrics::lease_lost(queue, why);
    isolated(SUBSCRIBER, || {
        tracing::warn!(
            messaging.system = metrics::SYSTEM,
            messaging.destination.name = %queue,
            %receipt,
            why,
            "a lease ended before its message was settled; another consumer may get the message"
        );
    });
}

/// A lease was handed out.
pub(crate) fn handed_out(queue: &QueueName, delivery: &Delivery) {
    // Both times are by the backend's clock, so a wrong local clock does not matter.
    let expires = delivery.lease_expires_at;
    let until_expiry = expires.duration_since(delivery.enqueued_at);
    let waited = until_expiry.unwrap_or_default();
    let waited = waited.saturating_sub(delivery.visibility_timeout);
    metrics::time_in_queue(queue, waited);
}
