//! The checks of listeners and workers, on SQLite.

use std::{process::ExitCode, sync::Arc};

use queue_test_support::consumer::{Opened, run};
use sqlite_backend::SqliteBackend;
use tempfile::TempDir;

fn main() -> ExitCode {
    run(|clock| {
        Box::pin(async move {
            let folder = TempDir::new().expect("a temporary folder");
            let file = folder.path().join("queues.sqlite");
            let backend = SqliteBackend::open(file).await.expect("a new file opens");
            let backend = backend.with_clock(clock);
            Opened {
                backend: Arc::new(backend.clone()),
                admin: Arc::new(backend),
                guard: Box::new(folder),
            }
        })
    })
}
