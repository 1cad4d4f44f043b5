//! Who takes part in a shared call.

use tokio::sync::oneshot;

use super::call::Call;
use crate::Result;

/// One part of a shared call, and whom to answer.
pub(super) struct Caller<C: Call> {
    pub(super) call: C,
    /// None where nobody waits: a message is given back for a caller who is gone.
    answer: Option<oneshot::Sender<Result<C::Answer>>>,
}

impl<C: Call> Caller<C> {
    pub(super) fn new(call: C, answer: oneshot::Sender<Result<C::Answer>>) -> Self {
        Self {
            call,
            answer: Some(answer),
        }
    }

    /// A part that has to be made, although nobody waits for its answer.
    pub(super) fn nobody(call: C) -> Self {
        Self { call, answer: None }
    }

    /// Whether the future that was to have the answer has been dropped.
    pub(super) fn is_gone(&self) -> bool {
        self.answer.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    pub(super) fn answer(self, answer: Result<C::Answer>) {
        match (self.answer, answer) {
            // Whoever is gone needs no answer, and what one holds is given back by its drop.
            (Some(waiting), answer) => drop(waiting.send(answer)),
            (None, Ok(_)) => {}
            (None, Err(error)) => tracing::warn!(
                %error,
                "messages of callers who are gone could not be given back; \
                 they are ready again when their visibility timeout has passed"
            ),
        }
    }
}
