//! The conformance suite on a real MongoDB, without lanes.

// That target's `main` is unused here.
#[allow(dead_code)]
#[path = "conformance.rs"]
mod docdb;

use std::process::ExitCode;

fn main() -> ExitCode {
    queue_conformance::run(docdb::DocDb {
        lanes: 1,
        histories: 20,
    })
}
