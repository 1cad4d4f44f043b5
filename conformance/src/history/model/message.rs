//! A message of the model.

use std::time::SystemTime;

use queue_api::{DeadLetter, DeadReason, MessageState, NewMessage, PeekedMessage, Receipt};

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

    /// What an administrator sees of it while it is live.
    pub(super) fn peeked(&self, now: SystemTime) -> Option<PeekedMessage> {
        let State::Live { ready_at, receipt } = &self.state else {
            return None;
        };
        let state = match receipt {
            _ if *ready_at <= now => MessageState::Ready,
            Some(_) => MessageState::Leased,
            None => MessageState::Delayed,
        };
        let sent = &self.sent;
        let peeked = PeekedMessage::new(sent.id.clone(), sent.payload.clone(), state)
            .with_headers(sent.headers.clone())
            .with_attempts(self.attempts)
            .with_max_attempts(sent.max_attempts_or_default())
            .with_visibility_timeout(sent.visibility_timeout_or_default())
            .with_enqueued_at(self.enqueued_at)
            .with_ready_at(*ready_at);
        Some(peeked)
    }

    /// What an administrator sees of it once it is dead.
    pub(super) fn dead_letter(&self) -> Option<DeadLetter> {
        let State::Dead { at, reason } = &self.state else {
            return None;
        };
        let sent = &self.sent;
        let letter = DeadLetter::new(sent.id.clone(), sent.payload.clone(), reason.clone())
            .with_headers(sent.headers.clone())
            .with_attempts(self.attempts)
            .with_max_attempts(sent.max_attempts_or_default())
            .with_visibility_timeout(sent.visibility_timeout_or_default())
            .with_enqueued_at(self.enqueued_at)
            .with_died_at(*at);
        Some(letter)
    }
}
