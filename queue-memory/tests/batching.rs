//! The conformance suite on the memory backend behind `Batching`.

// Its `main` belongs to the other test target.
#[allow(dead_code)]
#[path = "conformance.rs"]
mod direct;

use std::{process::ExitCode, sync::Arc};

use queue_api::Batching;
use queue_conformance::Wrapped;

fn main() -> ExitCode {
    let harness = Wrapped::new(direct::Memory, |backend| Arc::new(Batching::new(backend)));
    queue_conformance::run(harness)
}
