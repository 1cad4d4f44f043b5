//! The conformance suite on a real MongoDB, with calls batched by `Batching`.

// That target's `main` is unused here.
#[allow(dead_code)]
#[path = "conformance.rs"]
mod docdb;

use std::{process::ExitCode, sync::Arc};

use queue_api::Batching;
use queue_conformance::Wrapped;

fn main() -> ExitCode {
    let harness = Wrapped::new(docdb::DocDb::DEFAULT, |backend| {
        Arc::new(Batching::new(backend))
    });
    queue_conformance::run(harness.with_histories(20))
}
