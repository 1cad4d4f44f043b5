#![doc = include_str!("../README.md")]

mod checks;
mod contract;
mod fixture;
mod harness;
mod history;
mod isolation;
mod panic_location;
mod poll_at_most;
mod race;
pub mod record;
mod replay;
mod report;
mod runner;
mod suite;
mod tally;
mod wrapped;

pub use contract::Line;
pub use harness::{Capability, Connection, Fault, Faults, Harness, HarnessError, Store, TestTime};
pub use report::{CheckResult, Outcome, Report};
pub use runner::{report, run};
pub use wrapped::Wrapped;
