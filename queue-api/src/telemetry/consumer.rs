//! Metrics and log lines of the consumer.

use super::{log, metrics};
use crate::{Delivery, Error, QueueName, Receipt};

/// A call to the store failed, and the listener goes on.
pub(crate) fn store_error(queue: &QueueName, error: &Error) {
    metrics::store_error(queue, error);
    log::store_error(queue, error);
}

/// A lease ended without settlement, perhaps before it was handed out.
pub(crate) fn lease_lost(queue: &QueueName, receipt: &Receipt, why: &'static str) {
    metrics::lease_lost(queue, why);
    log::lease_lost(queue, receipt, why);
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
