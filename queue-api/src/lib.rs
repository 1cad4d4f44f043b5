#![doc = include_str!("../README.md")]

mod admin;
mod backend;
mod clock;
mod coalescing;
pub mod consumer;
mod error;
mod lease;
mod limits;
mod message;
pub mod metrics;
pub mod millis;
mod name;
mod queue;
mod stats;
pub mod trace;
mod typed;

pub use admin::{
    DeadLetter, DeadLetterPage, DeadReason, MessageState, PeekedMessage, Purge, QueueAdmin, Redrive,
};
pub use backend::QueueBackend;
pub use clock::{Clock, ManualClock, SystemClock, TokioClock};
pub use coalescing::Coalescing;
pub use error::{Error, ErrorKind, Result};
pub use lease::{
    Delivery, LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, MAX_REASON_BYTES, Receipt,
};
pub use limits::Limits;
pub use message::{EnqueueOutcome, Headers, NewMessage};
pub use name::{MessageId, QueueName};
pub use queue::Queue;
pub use stats::QueueStats;
pub use typed::{Codec, CodecError, DecodeError, Json, TypedDelivery, TypedQueue};

/// What the signatures of [`QueueBackend`] are made of, so that a backend need not find the
/// matching versions.
pub use {async_trait::async_trait, bytes::Bytes};

/// Compiles and runs what the workspace's README shows.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
