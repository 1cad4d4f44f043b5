//! Judges commands by what Amazon DocumentDB takes.
//!
//! MongoDB takes commands that DocumentDB refuses. [`Gate`] watches a client and fails the test
//! that sent one; [`judge`] judges a single command. Both use the table in `documentdb.md`, beside
//! this crate's `README.md`, most of it from
//! [AWS](https://docs.aws.amazon.com/documentdb/latest/developerguide/mongo-apis.html). What the
//! table does not have is refused.

mod engine;
mod gate;
mod judge;
mod table;

pub use engine::{Engine, Engines};
pub use gate::{Gate, Refused};
pub use judge::{Finding, judge};
