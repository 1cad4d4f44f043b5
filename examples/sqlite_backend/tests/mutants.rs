//! Two backends with bugs that only show with several processes. The checks of the suite that
//! start processes have to reject them.

use std::{panic, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use queue_api::{EnqueueOutcome, NewMessage, QueueBackend, QueueName, Result, async_trait};
use queue_conformance::{
    Capability, Connection, Harness, HarnessError, Store, TestTime, record::remove_kept,
};
use queue_test_support::{Delegate, Delegated};
use sqlite_backend::SqliteBackend;
use tempfile::TempDir;

#[derive(Clone, Copy, Debug)]
enum Bug {
    /// Claims to use its server's time, but each process uses its own clock.
    UsesOwnClocks,
    /// Answers an enqueue at once and stores the messages a little later.
    StoresLater,
}

const BUGS: [(Bug, &str); 2] = [
    (Bug::UsesOwnClocks, "clients_with_wrong_clocks_do_no_harm"),
    (Bug::StoresLater, "killed_processes_lose_nothing"),
];

fn main() -> ExitCode {
    // Each failure would print its panic.
    panic::set_hook(Box::new(|_| {}));
    let mut missed = 0;
    for (bug, check) in BUGS {
        // In a process that the suite starts, the first call does not return.
        let report = queue_conformance::report(Mutant(bug), 4, &[check]);
        remove_kept(&report).expect("the records are this process's");
        let rejected = report.failed_checks().any(|name| name.ends_with(check));
        println!("{bug:?}: rejected by {check}: {rejected}");
        missed += usize::from(!rejected);
    }
    println!("{} passed, {missed} failed", BUGS.len() - missed);
    ExitCode::from(u8::from(missed > 0))
}

struct Mutant(Bug);

struct MutantStore {
    bug: Bug,
    folder: TempDir,
    time: TestTime,
}

#[async_trait]
impl Harness for Mutant {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        let (bug, folder) = (self.0, TempDir::new()?);
        Ok(Arc::new(MutantStore { bug, folder, time }))
    }

    fn histories(&self) -> u32 {
        4
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[
            Capability::Admin,
            Capability::Processes,
            Capability::ServerTime,
        ]
    }

    /// Takes the bug from the address, because a started process does not know which it has.
    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        let (name, file) = address.split_once(' ').ok_or("no bug in the address")?;
        let named = |(bug, _): &(Bug, _)| name == format!("{bug:?}");
        let (bug, _) = BUGS.into_iter().find(named).ok_or("an unknown bug")?;
        Ok(connection(bug, SqliteBackend::open(file).await?))
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(15)
    }
}

impl MutantStore {
    fn file(&self) -> PathBuf {
        self.folder.path().join("queues.sqlite")
    }
}

#[async_trait]
impl Store for MutantStore {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        let backend = SqliteBackend::open(self.file()).await?;
        let backend = self.time.give_to(backend, SqliteBackend::with_clock);
        Ok(connection(self.bug, backend))
    }

    fn address(&self) -> String {
        format!("{:?} {}", self.bug, self.file().display())
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        Ok(std::fs::remove_dir_all(self.folder.path())?)
    }
}

fn connection(bug: Bug, backend: SqliteBackend) -> Connection {
    let connection = Connection::new(backend);
    match bug {
        // The wrong claim is the bug.
        Bug::UsesOwnClocks => connection,
        Bug::StoresLater => connection.wrapped(|inner| Arc::new(Delegated(StoresLater(inner)))),
    }
}

#[derive(Debug)]
struct StoresLater(Arc<dyn QueueBackend>);

#[async_trait]
impl Delegate for StoresLater {
    type Inner = dyn QueueBackend;

    fn inner(&self) -> &dyn QueueBackend {
        &*self.0
    }

    async fn enqueue(&self, queue: &QueueName, all: &[NewMessage]) -> Result<Vec<EnqueueOutcome>> {
        let (inner, queue, later) = (self.0.clone(), queue.clone(), all.to_vec());
        tokio::spawn(async move {
            #[allow(clippy::disallowed_methods)] // the bug is that time passes
            tokio::time::sleep(Duration::from_millis(30)).await;
            let _ = inner.enqueue(&queue, &later).await;
        });
        Ok(vec![EnqueueOutcome::Stored; all.len()])
    }
}
