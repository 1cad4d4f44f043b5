//! The contract, on a real MongoDB without lanes.

// Its `main` is that of the other target.
#[allow(dead_code)]
#[path = "conformance.rs"]
mod plain;

use std::process::ExitCode;

fn main() -> ExitCode {
    queue_conformance::run(plain::DocDb {
        lanes: 1,
        histories: 20,
    })
}
