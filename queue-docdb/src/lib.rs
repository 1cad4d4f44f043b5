#![doc = include_str!("../README.md")]
// Examples are copied.
#![doc(test(attr(deny(unused_must_use))))]

mod backend;
mod builder;
mod calls;
mod connect;
mod document;
mod inspection;
mod lock;
mod names;
mod state;
mod store;
mod transaction;
mod watch;

pub use backend::DocDbBackend;
pub use builder::DocDbBuilder;
/// The driver. The builder and [`DocDbBackend::from_database`] take its types.
pub use mongodb;
pub use store::driver_error::driver_error;
pub use transaction::InTransaction;
