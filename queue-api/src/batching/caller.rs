//! A caller that shares a backend call with others.

use tokio::sync::oneshot;

use crate::{Result, telemetry::log};

/// One caller's request, and where its answer goes.
pub(super) struct Caller<R, A> {
    pub(super) request: R,
    /// `None` if no future waits: messages are released for a caller that was dropped.
    answer: Option<oneshot::Sender<Result<A>>>,
}

impl<R, A> Caller<R, A> {
    pub(super) fn new(request: R, answer: oneshot::Sender<Result<A>>) -> Self {
        Self {
            request,
            answer: Some(answer),
        }
    }

    pub(super) fn detached(request: R) -> Self {
        Self {
            request,
            answer: None,
        }
    }

    /// Whether the future that waits for the answer was dropped.
    pub(super) fn is_dropped(&self) -> bool {
        self.answer.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    /// Whether a future waits for the answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.answer
            .as_ref()
            .is_some_and(|answer| !answer.is_closed())
    }

    pub(super) fn answer(self, answer: Result<A>) {
        match (self.answer, answer) {
            // If the receiver was dropped, the answer is dropped here, which releases its leases.
            (Some(receiver), answer) => drop(receiver.send(answer)),
            (None, Ok(_)) => {}
            (None, Err(error)) => log::not_released(&error),
        }
    }
}
