//! The conformance suite on a real MongoDB, with a document for each message and no unique index, as
//! on elastic clusters.

// That target's `main` is unused here.
#[allow(dead_code)]
#[path = "conformance.rs"]
mod docdb;

use std::process::ExitCode;

fn main() -> ExitCode {
    queue_conformance::run(docdb::DocDb {
        entry_size: 1,
        histories: 20,
    })
}
