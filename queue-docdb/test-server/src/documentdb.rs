//! What Amazon DocumentDB takes, and a gate that judges what a test sends.
//!
//! MongoDB is not DocumentDB: a test that passes here may fail there with the first command.
//! So every command is judged by a table of what each engine documents (`documentdb.md` beside
//! this crate's `README.md`, with the source of each line; most are from
//! [AWS](https://docs.aws.amazon.com/documentdb/latest/developerguide/mongo-apis.html)). What
//! the table does not name is refused.

mod engine;
mod gate;
mod judge;
mod table;

pub use engine::{Engine, Engines};
pub use gate::{Gate, Refused};
pub use judge::{Finding, judge};
