#![doc = include_str!("../README.md")]
// Examples are copied.
#![doc(test(attr(deny(unused_must_use))))]

mod ack;
mod admin;
mod aim;
mod amazon;
mod apart;
mod backend;
mod builder;
mod candidate;
mod cause;
mod change;
mod claim;
mod clock;
mod codes;
mod collection;
mod connect;
mod diagnose;
mod document;
mod duplicate;
mod enqueue;
mod error;
mod head;
mod hello_mistakes;
mod home;
mod index;
mod insert;
mod inspect;
mod instant;
mod key;
mod kinds;
mod lanes;
mod looks;
mod monotonic;
mod names;
mod poll;
mod prepare;
mod queues;
mod receipt;
mod refused;
mod retry;
mod statements;
mod stats;
mod tls_files;
mod tls_mistakes;
mod transaction;
mod unsettled;
mod uri;
mod wait;
mod watch;
mod words;
mod write_reply;

pub use backend::DocDbBackend;
pub use builder::DocDbBuilder;
pub use cause::driver_error;
/// The driver. The builder and [`DocDbBackend::from_database`] take its types.
pub use mongodb;
pub use transaction::InTransaction;
