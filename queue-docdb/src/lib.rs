#![doc = include_str!("../README.md")]
// Examples are copied.
#![doc(test(attr(deny(unused_must_use))))]

mod backend;
mod builder;
mod calls;
mod clock;
mod codes;
mod collection;
mod connect;
mod document;
mod driver_error;
mod error;
mod index;
mod inspect;
mod instant;
mod knowledge;
mod limit;
mod monotonic;
mod names;
mod pause;
mod poll;
mod prepare;
mod queues;
mod retry;
mod shared_poll;
mod store;
mod transaction;
mod watch;

pub use backend::DocDbBackend;
pub use builder::DocDbBuilder;
pub use driver_error::driver_error;
/// The driver. The builder and [`DocDbBackend::from_database`] take its types.
pub use mongodb;
pub use transaction::InTransaction;
