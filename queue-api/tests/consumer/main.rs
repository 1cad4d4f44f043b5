//! The consumer's promises, on the memory backend.

use std::{process::ExitCode, sync::Arc};

use queue_memory::MemoryBackend;

mod checks;

fn main() -> ExitCode {
    checks::run(|clock| {
        Box::pin(async move {
            let backend = MemoryBackend::new().with_clock(clock);
            checks::Opened {
                backend: Arc::new(backend.clone()),
                admin: Arc::new(backend),
                guard: Box::new(()),
            }
        })
    })
}
