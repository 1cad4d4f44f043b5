#![doc = include_str!("../README.md")]

mod admin;
mod backend;
mod batching;
mod clock;
pub mod consumer;
mod queue;
mod telemetry;
mod typed;
mod types;

pub use admin::{
    DeadLetter, DeadLetterPage, DeadReason, MessageState, PeekedMessage, Purge, QueueAdmin, Redrive,
};
pub use backend::QueueBackend;
pub use batching::Batching;
pub use clock::{Clock, ManualClock, SystemClock, TokioClock};
pub use queue::Queue;
pub use telemetry::{metrics, trace};
pub use typed::{Codec, CodecError, DecodeError, Json, TypedDelivery, TypedQueue};
pub use types::{
    Delivery, EnqueueOutcome, Error, ErrorKind, Headers, LeaseAction, LeaseChange, LeaseOptions,
    LeaseOutcome, Limits, MAX_REASON_BYTES, MessageId, NewMessage, QueueName, QueueStats, Receipt,
    Result, millis,
};

/// What the signatures of [`QueueBackend`] are made of, so that a backend need not find the
/// matching versions.
pub use {async_trait::async_trait, bytes::Bytes};

/// Compiles and runs what the workspace's README shows.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
