#![doc = include_str!("../README.md")]
// Examples are copied.
#![doc(test(attr(deny(unused_must_use))))]

mod ack;
mod admin;
mod aim;
mod apart;
mod backend;
mod builder;
mod candidate;
mod change;
mod claim;
mod clock;
mod codes;
mod collection;
mod connect;
mod document;
mod driver_error;
mod duplicate;
mod enqueue;
mod error;
mod head;
mod in_session;
mod index;
mod insert;
mod inspect;
mod instant;
mod key;
mod knowledge;
mod lanes;
mod limit;
mod monotonic;
mod names;
mod pause;
mod poll;
mod prepare;
mod queues;
mod receipt;
mod retry;
mod shared_poll;
mod statements;
mod stats;
mod transaction;
mod unsettled;
mod wait;
mod watch;
mod write_reply;

pub use backend::DocDbBackend;
pub use builder::DocDbBuilder;
pub use driver_error::driver_error;
/// The driver. The builder and [`DocDbBackend::from_database`] take its types.
pub use mongodb;
pub use transaction::InTransaction;
