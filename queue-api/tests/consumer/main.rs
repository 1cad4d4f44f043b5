//! The checks of listeners and workers, on the memory backend.

use std::{process::ExitCode, sync::Arc};

use queue_memory::MemoryBackend;
use queue_test_support::consumer::{Opened, run};

fn main() -> ExitCode {
    run(|clock| {
        Box::pin(async move {
            let backend = MemoryBackend::new().with_clock(clock);
            Opened {
                backend: Arc::new(backend.clone()),
                admin: Arc::new(backend),
                guard: Box::new(()),
            }
        })
    })
}
