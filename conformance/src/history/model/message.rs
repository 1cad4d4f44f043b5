//! A message of the model.

use std::time::SystemTime;

use queue_api::{DeadReason, NewMessage, Receipt};

#[derive(Debug)]
pub(super) struct Message {
    pub(super) sent: NewMessage,
    pub(super) enqueued_at: SystemTime,
    pub(super) attempts: u32,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// Ready, delayed, or leased if there is a receipt: that depends on the time.
    Live {
        ready_at: SystemTime,
        receipt: Option<Receipt>,
    },
    Dead {
        at: SystemTime,
        reason: DeadReason,
    },
}

impl Message {
    pub(super) fn ready_at(&self) -> Option<SystemTime> {
        match self.state {
            State::Live { ready_at, .. } => Some(ready_at),
            State::Dead { .. } => None,
        }
    }

    pub(super) fn exhausted(&self) -> bool {
        self.attempts >= self.sent.max_attempts_or_default()
    }

    pub(super) fn has_receipt(&self, receipt: &Receipt) -> bool {
        matches!(&self.state, State::Live { receipt: Some(current), .. } if current == receipt)
    }
}
