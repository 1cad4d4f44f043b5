#![doc = include_str!("../README.md")]

mod bed;
mod checks;
mod contract;
mod drop_after;
mod guard;
mod harness;
mod history;
mod place;
pub mod record;
mod replay;
mod report;
mod runner;
mod suite;
mod wrapped;

pub use contract::Line;
pub use harness::{Claim, Connection, Fault, Faults, Harness, HarnessError, Store, TestTime};
pub use report::{Outcome, Report, Verdict};
pub use runner::{examine, run};
pub use wrapped::Wrapped;
