#![doc = include_str!("../README.md")]

mod checks;
mod contract;
mod drop_after;
mod fixture;
mod harness;
mod history;
mod isolation;
mod panic_location;
pub mod record;
mod replay;
mod report;
mod runner;
mod suite;
mod wrapped;

pub use contract::Line;
pub use harness::{Capability, Connection, Fault, Faults, Harness, HarnessError, Store, TestTime};
pub use report::{Outcome, Report, Verdict};
pub use runner::{examine, run};
pub use wrapped::Wrapped;
