//! What a backend is given according to the contract, demanded of the suite: it may not pass or
//! fail a backend by what no handle would hand it.

use std::time::Duration;

use queue_api::{
    LeaseAction, LeaseChange, LeaseOptions, Limits, MAX_REASON_BYTES, NewMessage, Receipt, Result,
};

use crate::state::refused;

/// Whether the limits allow it.
pub(crate) trait Given {
    fn is_within(&self, limits: &Limits) -> bool;
}

/// An error, if the suite hands a backend something that it is not to be handed.
pub(crate) fn demand(limits: &Limits, batch: usize, all: &[impl Given]) -> Result<()> {
    match batch <= limits.max_batch && all.iter().all(|one| one.is_within(limits)) {
        true => Ok(()),
        false => Err(refused("suite", "that was not to be given")),
    }
}

impl Given for NewMessage {
    fn is_within(&self, limits: &Limits) -> bool {
        self.payload.len() <= limits.max_payload_bytes
            && self.header_bytes() <= limits.max_header_bytes
            && !self.headers.contains_key("")
            && self.delay <= limits.max_delay
            && self.max_attempts > 0
            && is_timeout(self.visibility_timeout, limits)
    }
}

impl Given for Receipt {
    fn is_within(&self, _: &Limits) -> bool {
        true
    }
}

impl Given for LeaseOptions {
    fn is_within(&self, limits: &Limits) -> bool {
        let timeout = self.visibility_timeout();
        timeout.is_none_or(|timeout| is_timeout(timeout, limits))
    }
}

impl Given for LeaseChange {
    fn is_within(&self, limits: &Limits) -> bool {
        match &self.action {
            LeaseAction::Extend(by) => is_timeout(*by, limits),
            LeaseAction::Nack { delay } => *delay <= limits.max_delay,
            LeaseAction::Release => true,
            LeaseAction::DeadLetter { reason } => reason.len() <= MAX_REASON_BYTES,
        }
    }
}

fn is_timeout(timeout: Duration, limits: &Limits) -> bool {
    (Duration::from_millis(1)..=limits.max_visibility_timeout).contains(&timeout)
}
