//! What the tests of several crates share. Only tests depend on it.
//!
//! It depends on `queue-api`, so the unit tests of `queue-api` cannot use it: they would see two
//! copies of its types. Its integration tests can.

pub mod consumer;
mod delegate;
mod faulty;
mod subscriber;

pub use delegate::{Answer, Delegate, Delegated, Operation};
pub use faulty::{Fault, Faulty};
pub use subscriber::subscribe;

/// Compiles and runs the examples of the workspace's README. Here, because a package that is published
/// includes nothing from outside.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
