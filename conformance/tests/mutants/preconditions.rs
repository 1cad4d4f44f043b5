//! The preconditions of the trait's methods. The suite must not break them, because no handle does.

use std::time::Duration;

use queue_api::{LeaseAction, LeaseChange, LeaseOptions, Limits, MAX_REASON_BYTES, NewMessage};

pub(crate) fn batch(limits: &Limits, len: usize) {
    assert!(len <= limits.max_batch.get(), "a batch of {len}");
}

pub(crate) fn message(limits: &Limits, message: &NewMessage) {
    let is_valid = message.payload.len() <= limits.max_payload_bytes
        && message.header_bytes() <= limits.max_header_bytes
        && !message.headers.contains_key("")
        && message.delay_or_default() <= limits.max_delay
        && message.max_attempts_or_default() > 0
        && is_timeout(message.visibility_timeout_or_default(), limits);
    assert!(is_valid, "an invalid message: {message:?}");
}

pub(crate) fn lease(limits: &Limits, options: &LeaseOptions) {
    batch(limits, options.max_messages());
    let timeout = options.visibility_timeout();
    let is_valid = timeout.is_none_or(|timeout| is_timeout(timeout, limits));
    assert!(is_valid, "an invalid timeout: {timeout:?}");
}

pub(crate) fn change(limits: &Limits, change: &LeaseChange) {
    let is_valid = match &change.action {
        LeaseAction::Extend(by) => is_timeout(*by, limits),
        LeaseAction::Nack { delay } => *delay <= limits.max_delay,
        LeaseAction::Release => true,
        LeaseAction::DeadLetter { reason } => reason.len() <= MAX_REASON_BYTES,
    };
    assert!(is_valid, "an invalid change: {change:?}");
}

fn is_timeout(timeout: Duration, limits: &Limits) -> bool {
    timeout <= limits.max_visibility_timeout
}
