//! The contract, on the memory backend with batching.

// `main` belongs to the other test target.
#[allow(dead_code)]
#[path = "conformance.rs"]
mod plain;

use std::{process::ExitCode, sync::Arc};

use queue_api::Batching;
use queue_conformance::Wrapped;

fn main() -> ExitCode {
    let harness = Wrapped::new(plain::Memory, |backend| Arc::new(Batching::new(backend)));
    queue_conformance::run(harness)
}
