#![doc = include_str!("../README.md")]

mod bed;
mod checks;
mod contract;
mod harness;
mod history;
mod runner;

pub use contract::Line;
pub use harness::{Connection, Harness, HarnessError, Store, TestTime};
pub use runner::run;
