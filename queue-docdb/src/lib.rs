#![doc = include_str!("../README.md")]

mod ack;
mod admin;
mod backend;
mod builder;
mod change;
mod claim;
mod clock;
mod collection;
mod connect;
mod document;
mod enqueue;
mod error;
mod index;
mod instant;
mod names;
mod receipt;
mod stats;
mod transaction;
mod wait;
mod watch;

pub use backend::DocDbBackend;
pub use builder::DocDbBuilder;
pub use transaction::InTransaction;
