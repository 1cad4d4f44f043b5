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
    /// Store a message whose attempts may run out. An answer that it was a duplicate is judged, too.
    Store {
        /// The message, see [`message_name`].
        id: String,
        /// The delay of the message.
        delay: Millis,
        /// The largest number of deliveries.
        max_attempts: u32,
        /// Whether it was stored. `false` is the answer `Duplicate`.
        answer: Option<bool>,
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
    /// Read or change a whole queue.
    Manage {
        /// The queue, as in [`message_name`].
        queue: String,
        /// The call and its answer.
        call: ManageCall,
    },
}

/// A call on a whole queue and its answer. Without an answer the outcome is unknown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ManageCall {
    /// Remove all live messages.
    PurgeLive(Option<u64>),
    /// Remove all dead letters.
    PurgeDead(Option<u64>),
    /// Delete the queue.
    Delete {
        /// Whether it was deleted for certain.
        answered: bool,
    },
    /// Make dead letters ready again.
    Redrive {
        /// The ids in the queue. `None` for all.
        ids: Option<Vec<String>>,
        /// How many were redriven.
        answer: Option<u64>,
    },
    /// List all dead letters.
    DeadLetters(Option<Vec<RecordedMessage>>),
    /// Read live messages.
    Peek(Option<Vec<RecordedMessage>>),
    /// List all live messages.
    Messages(Option<Vec<RecordedMessage>>),
    /// List the queues. The answer says whether this one was listed.
    List(Option<bool>),
    /// Count the messages. The counts are judged only if no answered call overlaps this one.
    Stats(Option<RecordedStats>),
}

/// A message that was read and not leased.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedMessage {
    /// The message, see [`message_name`].
    pub id: String,
    /// The number of deliveries.
    pub attempts: u32,
    /// Whether it is a dead letter whose attempts ran out.
    pub exhausted: bool,
}

/// The number of messages in each state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of `QueueStats`.
pub struct RecordedStats {
    pub ready: u64,
    pub delayed: u64,
    pub leased: u64,
    pub dead: u64,
}

/// The name of a message in a record: its queue, its id there, and which message with this id it
/// is. An id is free again after an ack or a purge, and what is stored then is another message. The
/// judge knows from these names which messages cannot be in a queue at the same time.
///
/// Other text is the name of a message that shares its id with no other.
pub fn message_name(queue: &str, id: &str, copy: u64) -> String {
    format!("{queue}/{id}#{copy}")
}

/// The queue and the id in the name of a message.
pub(super) fn place(name: &str) -> &str {
    name.rsplit_once('#').map_or(name, |(place, _)| place)
}

/// Whether the message is in this queue.
pub(super) fn is_in(name: &str, queue: &str) -> bool {
    name.strip_prefix(queue)
        .is_some_and(|rest| rest.starts_with('/'))
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

pub(crate) fn millis(time: SystemTime) -> Millis {
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
    /// Whether the call is about `subject`: a message id with its queue, or a queue with a slash.
    pub(super) fn concerns(&self, subject: &str) -> bool {
        let is_it = |id: &str| match subject.strip_suffix('/') {
            Some(queue) => is_in(id, queue),
            None => place(id) == subject,
        };
        match &self.operation {
            Operation::Enqueue { id, .. }
            | Operation::Store { id, .. }
            | Operation::Settle { id, .. } => is_it(id),
            Operation::Lease { answer, .. } => answer.iter().flatten().any(|d| is_it(&d.id)),
            Operation::Manage { queue, .. } => is_in(subject, queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_record_says_what_was_answered() {
        let message = RecordedMessage {
            id: "q/m#1".to_owned(),
            attempts: 1,
            exhausted: true,
        };
        let stats = RecordedStats {
            ready: 1,
            delayed: 2,
            leased: 3,
            dead: 4,
        };
        let redrive = |answer| ManageCall::Redrive { ids: None, answer };
        for call in [
            ManageCall::PurgeLive(None),
            ManageCall::PurgeLive(Some(0)),
            ManageCall::PurgeDead(None),
            ManageCall::PurgeDead(Some(0)),
            ManageCall::Delete { answered: false },
            ManageCall::Delete { answered: true },
            redrive(None),
            redrive(Some(0)),
            ManageCall::DeadLetters(None),
            ManageCall::DeadLetters(Some(vec![message.clone()])),
            ManageCall::Peek(None),
            ManageCall::Peek(Some(vec![message.clone()])),
            ManageCall::Messages(None),
            ManageCall::Messages(Some(vec![message])),
            ManageCall::List(None),
            ManageCall::List(Some(false)),
            ManageCall::Stats(None),
            ManageCall::Stats(Some(stats)),
        ] {
            let kept = serde_json::to_string(&call).expect("a call is plain data");
            let read: ManageCall = serde_json::from_str(&kept).expect("it was just written");
            assert_eq!(format!("{read:?}"), format!("{call:?}"));
        }
    }
}
