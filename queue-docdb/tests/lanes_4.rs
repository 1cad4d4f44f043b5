//! The conformance suite on a real MongoDB, with four lanes.

// That target's `main` is unused here.
#[allow(dead_code)]
#[path = "conformance.rs"]
mod docdb;

use std::process::ExitCode;

fn main() -> ExitCode {
    queue_conformance::run(docdb::DocDb {
        lanes: 4,
        histories: 20,
    })
}
