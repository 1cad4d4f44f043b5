//! The consumer's promises, on SQLite: the checks that the memory backend passes, in virtual time.

use std::{process::ExitCode, sync::Arc};

use sqlite_backend::SqliteBackend;
use tempfile::TempDir;

#[path = "../../../queue-api/tests/consumer/checks/mod.rs"]
mod checks;

fn main() -> ExitCode {
    checks::run(|clock| {
        Box::pin(async move {
            let folder = TempDir::new().expect("a folder for temporary files");
            let file = folder.path().join("queues.sqlite");
            let backend = SqliteBackend::open(file).await.expect("a new file opens");
            let backend = backend.with_clock(clock);
            checks::Opened {
                backend: Arc::new(backend.clone()),
                admin: Arc::new(backend),
                guard: Box::new(folder),
            }
        })
    })
}
