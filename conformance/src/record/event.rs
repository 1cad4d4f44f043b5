//! What is recorded of a call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use queue_api::{Delivery, LeaseAction, LeaseOutcome};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment, by the clock that all processes of this machine share, in nanoseconds.
pub(super) type Moment = u64;

/// A time by the backend's clock, in milliseconds.
pub(super) type Millis = u64;

/// One call, from just before it began to just after it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Call {
    /// Which task or process made it.
    pub(super) by: String,
    /// How many calls it had made, with this one.
    pub(super) number: u64,
    /// A batch is recorded as a call for each part of it: which part this is, from 0.
    pub(super) part: usize,
    pub(super) began: Moment,
    /// None for a call that nobody saw the end of: its caller was killed.
    pub(super) ended: Option<Moment>,
    /// The earliest that the backend's clock may have shown during the call.
    pub(super) clock_from: Millis,
    /// The latest that it may have shown.
    pub(super) clock_to: Millis,
    pub(super) what: What,
}

/// What was asked, and what was answered. An answer of none is an unknown outcome: the call was
/// dropped, failed, or its caller was killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum What {
    Enqueue {
        id: String,
        delay: Millis,
        answered: bool,
    },
    Lease {
        visibility: Millis,
        answer: Option<Vec<Given>>,
    },
    Settle {
        receipt: String,
        id: String,
        action: Action,
        answer: Option<bool>,
    },
}

/// A delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Given {
    pub(super) id: String,
    pub(super) receipt: String,
    pub(super) attempt: u32,
    pub(super) expires: Millis,
}

/// What was asked for a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Action {
    Ack,
    Extend(Millis),
    Nack(Millis),
    Return,
    DeadLetter,
}

impl Action {
    /// As the change that it is; none for an ack, which is a call of its own.
    pub(super) fn change(self) -> Option<LeaseAction> {
        match self {
            Self::Ack => None,
            Self::Extend(by) => Some(LeaseAction::Extend(Duration::from_millis(by))),
            Self::Nack(delay) => Some(LeaseAction::Nack {
                delay: Duration::from_millis(delay),
            }),
            Self::Return => Some(LeaseAction::Return),
            Self::DeadLetter => Some(LeaseAction::DeadLetter {
                reason: "recorded".to_owned(),
            }),
        }
    }

    /// Whether nobody is given the message any more after it.
    pub(super) fn ends(self) -> bool {
        matches!(self, Self::Ack | Self::DeadLetter)
    }

    /// Whether the receipt is used up by it.
    pub(super) fn settles(self) -> bool {
        !matches!(self, Self::Extend(_))
    }
}

/// A receipt, and the id of the message that it was given with.
pub(super) type Held = (String, String);

impl Given {
    pub(super) fn held(&self) -> Held {
        (self.receipt.clone(), self.id.clone())
    }

    pub(super) fn new(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            receipt: delivery.receipt.to_string(),
            attempt: delivery.attempt,
            expires: millis(delivery.lease_expires_at),
        }
    }
}

pub(super) fn applied(outcome: LeaseOutcome) -> bool {
    outcome == LeaseOutcome::Applied
}

pub(super) fn millis(time: SystemTime) -> Millis {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as Millis
}

/// Now, by the machine's wall clock.
///
/// It is read from the kernel and not through the C library, so it is right also in a process
/// whose own idea of the time was made wrong on purpose.
pub(super) fn wall_clock() -> Millis {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as Millis * 1000 + now.tv_nsec as Millis / 1_000_000
}

/// Now, by the clock that all processes of this machine share: what orders their calls.
pub(super) fn moment() -> Moment {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as Moment * 1_000_000_000 + now.tv_nsec as Moment
}

impl Call {
    /// Whether the call is about the message with this id.
    pub(super) fn concerns(&self, message: &str) -> bool {
        match &self.what {
            What::Enqueue { id, .. } | What::Settle { id, .. } => id == message,
            What::Lease { answer, .. } => answer.iter().flatten().any(|given| given.id == message),
        }
    }
}
