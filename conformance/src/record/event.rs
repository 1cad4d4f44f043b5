//! The recorded call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use queue_api::{Delivery, LeaseAction};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment in nanoseconds, by the monotonic clock that all processes of this machine share.
pub type Moment = u64;

/// A time by the backend's clock, in milliseconds.
pub type Millis = u64;

/// One call, with the interval in which it took effect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// The task or process that made the call.
    pub by: String,
    /// The number of the call among those of its caller, from 1.
    pub number: u64,
    /// The part of a batch, from 0. A batch is recorded as one call for each part.
    pub part: usize,
    /// Before the call was made.
    pub began: Moment,
    /// After it was answered. `None` if the call failed or its caller was killed: it may then take
    /// effect at any time after it began.
    pub ended: Option<Moment>,
    /// The earliest time that the backend's clock may have shown during the call.
    pub clock_from: Millis,
    /// The latest time that it may have shown.
    pub clock_to: Millis,
    /// The request and its answer.
    pub operation: Operation,
}

/// A request and its answer. Without an answer the outcome is unknown: the call was dropped,
/// failed, or its caller was killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// Store a message.
    Enqueue {
        /// The message.
        id: String,
        /// The delay of the message.
        delay: Millis,
        /// Whether the message was stored for certain.
        answered: bool,
    },
    /// Lease messages.
    Lease {
        /// The visibility timeout.
        visibility: Millis,
        /// The messages that were leased.
        answer: Option<Vec<RecordedDelivery>>,
    },
    /// Use a receipt.
    Settle {
        /// The receipt.
        receipt: String,
        /// The message of the receipt.
        id: String,
        /// What to do with the message.
        action: ReceiptAction,
        /// Whether the action was applied.
        answer: Option<bool>,
    },
}

/// A delivery, as far as it is recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedDelivery {
    /// The message.
    pub id: String,
    /// Its receipt.
    pub receipt: String,
    /// Delivery number, from 1.
    pub attempt: u32,
    /// When the lease expires, by the backend's clock.
    pub expires: Millis,
}

/// What a receipt is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptAction {
    /// End the message.
    Ack,
    /// Extend the lease to this long from now.
    Extend(Millis),
    /// End the lease. The message is ready again after this delay.
    Nack(Millis),
    /// End the lease without an attempt.
    Release,
    /// Make the message a dead letter.
    DeadLetter,
}

impl ReceiptAction {
    /// `None` for an ack, which is a call of its own.
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

    /// Whether the message is not delivered any more.
    pub(super) fn ends(self) -> bool {
        matches!(self, Self::Ack | Self::DeadLetter)
    }

    /// Whether the receipt is lost afterwards.
    pub(super) fn settles(self) -> bool {
        !matches!(self, Self::Extend(_))
    }
}

impl RecordedDelivery {
    /// Records a delivery.
    pub fn new(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            receipt: delivery.receipt.to_string(),
            attempt: delivery.attempt,
            expires: millis(delivery.lease_expires_at),
        }
    }
}

pub(super) fn millis(time: SystemTime) -> Millis {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as Millis
}

/// The machine's wall clock now.
///
/// It is read from the kernel, not through the C library. So it is right even in a process whose
/// C library reports a wrong time on purpose.
pub fn wall_clock() -> Millis {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as Millis * 1000 + now.tv_nsec as Millis / 1_000_000
}

/// The monotonic clock now. It orders the calls of all processes of this machine.
pub fn moment() -> Moment {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as Moment * 1_000_000_000 + now.tv_nsec as Moment
}

impl Call {
    /// Whether the call is about the message with this id.
    pub(super) fn concerns(&self, message: &str) -> bool {
        match &self.operation {
            Operation::Enqueue { id, .. } | Operation::Settle { id, .. } => id == message,
            Operation::Lease { answer, .. } => answer.iter().flatten().any(|d| d.id == message),
        }
    }
}
