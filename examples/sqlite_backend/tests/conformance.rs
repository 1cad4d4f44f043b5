//! The conformance suite on SQLite.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use queue_api::async_trait;
use queue_conformance::{Capability, Connection, Harness, HarnessError, Store, TestTime};
use sqlite_backend::SqliteBackend;
use tempfile::TempDir;

struct Sqlite;

struct SqliteStore {
    folder: TempDir,
    time: TestTime,
}

#[async_trait]
impl Harness for Sqlite {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        let folder = TempDir::new()?;
        Ok(Arc::new(SqliteStore { folder, time }))
    }

    fn histories(&self) -> u32 {
        400
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[Capability::Admin, Capability::Processes]
    }

    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        Ok(Connection::new(SqliteBackend::open(address).await?))
    }
}

impl SqliteStore {
    fn file(&self) -> PathBuf {
        self.folder.path().join("queues.sqlite")
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        let backend = SqliteBackend::open(self.file()).await?;
        let backend = self.time.give_to(backend, SqliteBackend::with_clock);
        Ok(Connection::new(backend))
    }

    fn address(&self) -> String {
        self.file().display().to_string()
    }

    /// The folder holds the file and its write-ahead log.
    async fn remove(&self) -> Result<(), HarnessError> {
        Ok(std::fs::remove_dir_all(self.folder.path())?)
    }
}

fn main() -> ExitCode {
    queue_conformance::run(Sqlite)
}
