//! Plain data: messages, leases, names, limits and errors.

/// For the types that backends build: `with_` and the name of a field sets it.
macro_rules! setters {
    ($type:ident { $($set:ident $field:ident: $of:ty),* $(,)? }) => {
        impl $type {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $set(mut self, $field: $of) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

mod contents;
mod dead_letter;
mod error;
mod lease;
mod limits;
mod message;
pub mod millis;
mod name;
mod page;
mod plain_text;

pub use self::{
    contents::{MessageState, PeekedMessage, Purge, QueueStats},
    dead_letter::{DeadLetter, DeadReason, Redrive},
    error::{Error, ErrorKind, InvalidInput, Result},
    lease::{
        Delivery, LeaseAction, LeaseChange, LeaseOptions, LeaseOutcome, MAX_REASON_BYTES, Receipt,
    },
    limits::Limits,
    message::{EnqueueOutcome, Headers, NewMessage},
    name::{MessageId, QueueName},
    page::{DeadLetterPage, MessagePage, PageOptions, PageToken},
};
pub(crate) use self::{error::write_causes, limits::check_attempts, plain_text::plain_text};
