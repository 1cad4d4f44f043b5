//! Plain data: what goes into a queue, what comes out, and what can go wrong.

mod error;
mod lease;
mod limits;
mod message;
pub mod millis;
mod name;
mod stats;

pub use self::{
    error::{Error, ErrorKind, Result},
    lease::{
        Delivery, LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, MAX_REASON_BYTES, Receipt,
    },
    limits::Limits,
    message::{EnqueueOutcome, Headers, NewMessage},
    name::{MessageId, QueueName},
    stats::QueueStats,
};
