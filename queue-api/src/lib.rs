#![doc = include_str!("../README.md")]
// Examples are copied.
#![doc(test(attr(deny(unused_must_use))))]

mod admin;
mod backend;
mod batching;
mod catch_panic;
mod clock;
pub mod consumer;
mod defaults;
mod enqueue_all;
mod long_poll;
mod queue;
mod telemetry;
mod transaction;
mod typed;
mod types;

pub use admin::{Admin, DeadLetterStream, MessageStream, PageStream, QueueAdmin};
pub use backend::QueueBackend;
pub use batching::Batching;
pub use clock::{Clock, ManualClock, SystemClock, TokioClock};
pub use enqueue_all::{EnqueueAll, Enqueued, FailedBatch};
pub use queue::Queue;
pub use telemetry::metrics;
#[cfg(feature = "tracing")]
pub use telemetry::trace;
pub use transaction::QueueTransaction;
pub use typed::{
    Codec, CodecError, DecodeError, Json, TypedDelivery, TypedLease, TypedListener, TypedQueue,
    UndecodableLease,
};
pub use types::{
    DeadLetter, DeadLetterPage, DeadReason, Delivery, EnqueueOutcome, Error, ErrorKind, Headers,
    InvalidInput, LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, Limits, MAX_REASON_BYTES,
    MessageId, MessagePage, MessageState, NewMessage, PageOptions, PageToken, PeekedMessage, Purge,
    QueueName, QueueStats, Receipt, Redrive, Result, millis,
};

/// Used in the signatures of [`QueueBackend`]. A backend that takes them from here always has the
/// matching versions.
pub use {async_trait::async_trait, bytes::Bytes};

#[cfg(doc)]
#[doc = include_str!("../docs/moving_here.md")]
pub mod moving_here {}
