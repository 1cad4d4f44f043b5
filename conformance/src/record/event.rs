//! What is recorded of a call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use queue_api::{Delivery, LeaseAction, LeaseOutcome};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment, by the clock that all processes of this machine share, in nanoseconds.
pub type Moment = u64;

/// A time by the backend's clock, in milliseconds.
pub type Millis = u64;

/// One call, from just before it began to just after it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Which task or process made it.
    pub by: String,
    /// How many calls it had made, with this one.
    pub number: u64,
    /// A batch is recorded as a call for each part of it: which part this is, from 0.
    pub part: usize,
    /// Before the call was made.
    pub began: Moment,
    /// After it was answered. None for a call that may take effect at any time after it began:
    /// it failed, or its caller was killed.
    pub ended: Option<Moment>,
    /// The earliest that the backend's clock may have shown during the call.
    pub clock_from: Millis,
    /// The latest that it may have shown.
    pub clock_to: Millis,
    /// What was asked and answered.
    pub what: What,
}

/// What was asked, and what was answered. An answer of none is an unknown outcome: the call was
/// dropped, failed, or its caller was killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// A message was sent.
    Enqueue {
        /// The message.
        id: String,
        /// Not delivered before so many milliseconds have passed.
        delay: Millis,
        /// Whether it was stored for certain.
        answered: bool,
    },
    /// Messages were asked for.
    Lease {
        /// For how long.
        visibility: Millis,
        /// What was given.
        answer: Option<Vec<Given>>,
    },
    /// A receipt was used.
    Settle {
        /// The receipt.
        receipt: String,
        /// The message that it stands for.
        id: String,
        /// What for.
        action: Action,
        /// Whether that was applied.
        answer: Option<bool>,
    },
}

/// A delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Given {
    /// The message.
    pub id: String,
    /// Its receipt.
    pub receipt: String,
    /// The how manieth delivery it is.
    pub attempt: u32,
    /// When the lease runs out, by the backend's clock.
    pub expires: Millis,
}

/// What was asked for a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// End the message.
    Ack,
    /// Keep it for so long from now.
    Extend(Millis),
    /// Give it up, and have it back after so long.
    Nack(Millis),
    /// Give it up, and take the attempt back.
    Release,
    /// Make it a dead letter.
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
            Self::Release => Some(LeaseAction::Release),
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

    /// What is recorded of a delivery.
    pub fn new(delivery: &Delivery) -> Self {
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
pub fn wall_clock() -> Millis {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as Millis * 1000 + now.tv_nsec as Millis / 1_000_000
}

/// Now, by the clock that all processes of this machine share: what orders their calls.
pub fn moment() -> Moment {
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
