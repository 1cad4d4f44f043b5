//! Two backends that are wrong in ways which only several processes bring to light: the checks
//! that start processes have to reject them.

use std::{env, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use queue_api::{
    DeadLetter, DeadLetterPage, Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome,
    Limits, NewMessage, PeekedMessage, Purge, QueueAdmin, QueueBackend, QueueName, QueueStats,
    Receipt, Redrive, Result, async_trait,
};
use queue_conformance::{
    Capability, Connection, Harness, HarnessError, Outcome, Report, Store, TestTime, report,
};
use sqlite_backend::SqliteBackend;
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// Claims its server's time, and takes each process's own.
    TrustsEveryClock,
    /// Says that a message is stored and stores it a little later.
    StoresLater,
}

/// What the suite tells the processes that it starts; the address in it names the bug.
const CHILD: &str = "QUEUE_CONFORMANCE_CHILD";

fn main() -> ExitCode {
    let bugs = [
        (
            Bug::TrustsEveryClock,
            "clients_with_wrong_clocks_do_no_harm",
        ),
        (Bug::StoresLater, "killed_processes_lose_nothing"),
    ];
    // A child has one bug only, and for it `report` does not return.
    let told = env::var(CHILD).ok();
    // They fail checks by the dozen, and each would print its panic.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = 0;
    for (bug, check) in bugs {
        if told
            .as_ref()
            .is_some_and(|told| !told.contains(&format!("{bug:?}")))
        {
            continue;
        }
        let report = report(Mutant { bug }, 4);
        remove_records(&report);
        let seen = report.failed_checks().any(|name| name.ends_with(check));
        println!(
            "{bug:?}: {check} {}",
            if seen { "rejects it" } else { "MISSES it" }
        );
        missed += u32::from(!seen);
    }
    println!("{} passed, {missed} failed", bugs.len() as u32 - missed);
    ExitCode::from(u8::from(missed > 0))
}

/// Records that fail are kept as files, for people who look for a bug. Here the bug is known.
fn remove_records(report: &Report) {
    for result in &report.results {
        if let Outcome::Failed(why) = &result.outcome
            && let Some((_, command)) = why.split_once("QUEUE_CONFORMANCE_RECORD=")
        {
            let path = command.split_whitespace().next().unwrap_or_default();
            // One that is gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

struct Mutant {
    bug: Bug,
}

struct MutantStore {
    folder: TempDir,
    time: TestTime,
    bug: Bug,
}

#[async_trait]
impl Harness for Mutant {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        let (folder, bug) = (TempDir::new()?, self.bug);
        Ok(Arc::new(MutantStore { folder, time, bug }))
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

    async fn attach(&self, address: &str) -> Result<Connection, HarnessError> {
        let (bug, file) = address
            .split_once(' ')
            .ok_or("an address is a bug and a file")?;
        if bug != format!("{:?}", self.bug) {
            return Err(format!("this is {:?}, and the store is for {bug}", self.bug).into());
        }
        let inner = SqliteBackend::open(file).await?;
        let bug = self.bug;
        Ok(Connection::new(Broken { inner, bug }))
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
        let inner = SqliteBackend::open(self.file()).await?;
        let inner = self.time.give_to(inner, SqliteBackend::with_clock);
        let bug = self.bug;
        Ok(Connection::new(Broken { inner, bug }))
    }

    fn address(&self) -> String {
        format!("{:?} {}", self.bug, self.file().display())
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        Ok(std::fs::remove_dir_all(self.folder.path())?)
    }
}

#[derive(Debug)]
struct Broken {
    inner: SqliteBackend,
    bug: Bug,
}

#[async_trait]
impl QueueBackend for Broken {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        if self.bug != Bug::StoresLater {
            return self.inner.enqueue(queue, messages).await;
        }
        let (inner, queue, later) = (self.inner.clone(), queue.clone(), messages.to_vec());
        tokio::spawn(async move {
            // The point of the bug is that time passes.
            #[allow(clippy::disallowed_methods)]
            tokio::time::sleep(Duration::from_millis(30)).await;
            let _ = inner.enqueue(&queue, &later).await;
        });
        Ok(vec![EnqueueOutcome::Stored; messages.len()])
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        self.inner.lease(queue, options).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        self.inner.ack(queue, receipts).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        self.inner.change(queue, changes).await
    }

    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        self.inner.wait(queue, at_most).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.inner.stats(queue).await
    }
}

#[async_trait]
impl QueueAdmin for Broken {
    async fn peek(&self, queue: &QueueName, max: usize) -> Result<Vec<PeekedMessage>> {
        self.inner.peek(queue, max).await
    }

    async fn purge(&self, queue: &QueueName, what: Purge) -> Result<u64> {
        self.inner.purge(queue, what).await
    }

    async fn dead_letters(
        &self,
        queue: &QueueName,
        page: &DeadLetterPage,
    ) -> Result<Vec<DeadLetter>> {
        self.inner.dead_letters(queue, page).await
    }

    async fn redrive(&self, queue: &QueueName, which: &Redrive) -> Result<u64> {
        self.inner.redrive(queue, which).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        self.inner.delete_queue(queue).await
    }

    async fn list_queues(&self) -> Result<Vec<QueueName>> {
        self.inner.list_queues().await
    }
}
