//! C2 with real processes: this program starts itself twice, as workers on one file.

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use queue_api::{LeaseOptions, LeaseOutcome, MessageId, NewMessage, Queue, QueueStats, Result};
use sqlite_backend::SqliteBackend;
use tempfile::TempDir;

/// If it is set, this process is a worker on the file that it names.
const FILE: &str = "SQLITE_BACKEND_FILE";

const MESSAGES: usize = 300;

fn main() -> ExitCode {
    if let Some(file) = env::var_os(FILE) {
        work(Path::new(&file)).expect("the worker finishes");
        return ExitCode::SUCCESS;
    }
    let share = Trial::test("C2_concurrent::processes_share_a_file", || {
        let folder = TempDir::new()?;
        share(&folder.path().join("queues.sqlite"))?;
        folder.close().map_err(Failed::from)
    });
    libtest_mimic::run(&Arguments::from_args(), vec![share]).exit_code()
}

/// One process enqueues while two others lease and ack.
#[tokio::main]
async fn share(file: &Path) -> Result<()> {
    // The file does not exist yet, so all three processes try to create it.
    let workers = [Worker::start(file), Worker::start(file)];
    let queue = open(file, "work").await?;
    for n in 0..MESSAGES {
        let id = MessageId::new(&n.to_string())?;
        // Long enough that no lease expires on a slow machine.
        let day = Duration::from_secs(24 * 3600);
        let message = NewMessage::new("").with_id(id).with_visibility_timeout(day);
        queue.enqueue(&message).await?;
    }
    let stop = open(file, "stop").await?;
    stop.enqueue(&NewMessage::new("")).await?;

    let acked: Vec<_> = workers.into_iter().flat_map(Worker::acked).collect();
    let distinct: BTreeSet<_> = acked.iter().collect();
    assert_eq!(acked.len(), MESSAGES, "the workers ack every message");
    assert_eq!(distinct.len(), MESSAGES, "no message is acked twice");
    assert_eq!(queue.stats().await?, QueueStats::default());
    Ok(())
}

/// Leases and acks until there is a message in `stop` and none in `work`.
#[tokio::main]
async fn work(file: &Path) -> Result<()> {
    let (queue, stop) = (open(file, "work").await?, open(file, "stop").await?);
    loop {
        // Read before the lease, because `stop` is enqueued after the last message.
        let stopping = stop.stats().await?.ready > 0;
        let deliveries = queue.lease_batch(&LeaseOptions::new(5)).await?;
        if deliveries.is_empty() {
            if stopping {
                return Ok(());
            }
            queue.wait(Duration::from_millis(100)).await?;
        }
        for delivery in deliveries {
            assert_eq!(delivery.attempt, 1, "{} is delivered once", delivery.id);
            assert_eq!(queue.ack(&delivery.receipt).await?, LeaseOutcome::Applied);
            println!("{}", delivery.id);
        }
    }
}

async fn open(file: &Path, queue: &str) -> Result<Queue> {
    Queue::new(Arc::new(SqliteBackend::open(file).await?), queue)
}

/// A worker process. Dropping this kills it.
struct Worker(Child);

impl Worker {
    fn start(file: &Path) -> Self {
        let this = env::current_exe().expect("the path of this program is known");
        let mut command = Command::new(this);
        command.env(FILE, file).stdout(Stdio::piped());
        Self(command.spawn().expect("the program starts again"))
    }

    /// Waits for the worker to end, and returns the ids that it acked.
    fn acked(mut self) -> Vec<String> {
        let output = self.0.stdout.take().expect("stdout is piped");
        let lines: std::io::Result<_> = BufReader::new(output).lines().collect();
        let status = self.0.wait().expect("the worker ends");
        assert!(status.success(), "the worker ended with {status}");
        lines.expect("ids are UTF-8")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
