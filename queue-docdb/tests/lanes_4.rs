//! The contract, on a real MongoDB with four lanes.

// Its `main` is that of the other target.
#[allow(dead_code)]
#[path = "conformance.rs"]
mod plain;

use std::process::ExitCode;

fn main() -> ExitCode {
    queue_conformance::run(plain::DocDb {
        lanes: 4,
        histories: 20,
    })
}
