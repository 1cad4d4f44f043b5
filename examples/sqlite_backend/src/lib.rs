#![doc = include_str!("../README.md")]

mod admin;
mod backend;
mod error;
mod message;
mod operations;
mod schema;

#[cfg(test)]
mod plans;

pub use backend::SqliteBackend;
