#![doc = include_str!("../README.md")]

// In the order in which the tutorial reads them.
mod schema;

mod backend;

mod operations;

mod message;

mod admin;

mod error;

#[cfg(test)]
mod plans;

pub use backend::SqliteBackend;
