//! What the consumer logs and counts.

use std::time::{Duration, SystemTime};

use crate::{Delivery, Error, Queue, Receipt, consumer::LeaseEnd, metrics};

/// The store failed, and the consumer goes on.
pub(crate) fn store_error(queue: &Queue, error: &Error) {
    metrics::store_error(queue.name(), error);
    tracing::warn!(
        messaging.system = metrics::SYSTEM,
        messaging.destination.name = %queue.name(),
        error.type = ?error.kind(),
        %error,
        "the store failed; this is repeated"
    );
}

/// A lease ended without a verdict, perhaps before anybody had begun to work on its message.
pub(crate) fn lease_lost(queue: &Queue, receipt: &Receipt, why: LeaseEnd) {
    metrics::lease_lost(queue.name(), why);
    tracing::warn!(
        messaging.system = metrics::SYSTEM,
        messaging.destination.name = %queue.name(),
        %receipt,
        ?why,
        "a lease is lost: somebody else may be given its message"
    );
}

/// A lease came into somebody's hands.
pub(crate) fn handed_out(queue: &Queue, delivery: &Delivery) {
    metrics::time_in_queue(queue.name(), time_in_queue(delivery));
}

/// By the backend's clock alone, so that no other clock falsifies it.
fn time_in_queue(delivery: &Delivery) -> Duration {
    let leased_at: SystemTime = delivery.lease_expires_at - delivery.visibility_timeout;
    leased_at
        .duration_since(delivery.enqueued_at)
        .unwrap_or_default()
}
