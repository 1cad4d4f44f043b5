//! Plain data: messages, leases, names, limits and errors.

mod contents;
mod dead_letter;
mod error;
mod lease;
mod limits;
mod message;
pub mod millis;
mod name;

pub use self::{
    contents::{MessageState, PeekedMessage, Purge, QueueStats},
    dead_letter::{DeadLetter, DeadLetterPage, DeadReason, Redrive},
    error::{Error, ErrorKind, Result},
    lease::{
        Delivery, LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, MAX_REASON_BYTES, Receipt,
    },
    limits::Limits,
    message::{EnqueueOutcome, Headers, NewMessage},
    name::{MessageId, QueueName},
};
