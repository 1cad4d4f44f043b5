//! The command that a failure prints runs it again, and what is not run says so.
//!
//! The environment decides what runs. So this program starts itself again as the conformance test
//! of a backend with a bug.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
};

use libtest_mimic::{Arguments, Failed, Trial};
use queue_api::{LeaseOutcome, QueueBackend, QueueName, Receipt, Result, async_trait};
use queue_conformance::{Capability, Connection, Harness, HarnessError, Store, TestTime};
use queue_memory::MemoryBackend;
use queue_test_support::{Delegate, Delegated};
use serde_json::Value;
use uuid::Uuid;

/// If it is set, this process is the conformance test.
const IS_THE_TEST: &str = "REPLAY_IS_THE_TEST";

fn main() -> ExitCode {
    if env::var_os(IS_THE_TEST).is_some() {
        return queue_conformance::run(Memory);
    }
    let trials = vec![
        Trial::test("a_shard_without_histories_is_not_run", no_histories),
        Trial::test("a_seed_fails_again", a_seed_fails_again),
        Trial::test("a_record_fails_again", a_record_fails_again),
        Trial::test("a_failure_ends_the_run_if_asked", a_failure_ends_the_run),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The shards, in the order of the report.
const SHARDS: [&str; 8] = [
    "histories::random_histories_1_of_4",
    "histories::random_histories_2_of_4",
    "histories::random_histories_3_of_4",
    "histories::random_histories_4_of_4",
    "histories::concurrent_histories_1_of_4",
    "histories::concurrent_histories_2_of_4",
    "histories::concurrent_histories_3_of_4",
    "histories::concurrent_histories_4_of_4",
];

fn no_histories() -> Result<(), Failed> {
    let folder = Folder::new()?;
    let none = folder.run("histories", [("QUEUE_CONFORMANCE_HISTORIES", "0")])?;
    assert_eq!(none.order, SHARDS);
    assert!(none.outcomes.values().all(is_not_run), "{none:?}");
    assert!(none.printed.contains("concurrent histories: not run"));
    assert!(!none.printed.contains("pass"), "{}", none.printed);
    assert!(none.succeeded);
    Ok(())
}

fn a_seed_fails_again() -> Result<(), Failed> {
    let folder = Folder::new()?;
    let failed = folder.run("random_histories", [BUG])?;
    let why = failed.failure();
    let (seed, filter) = replayed(&why, "QUEUE_CONFORMANCE_SEED");
    let again = folder.run(&filter, [("QUEUE_CONFORMANCE_SEED", &*seed), BUG])?;
    assert_eq!(again.order, [SHARDS[0]]);
    assert!(again.failure().contains(&seed));
    let all = folder.run("random", [("QUEUE_CONFORMANCE_SEED", &*seed), BUG])?;
    assert!(all.outcomes[SHARDS[0]].get("failed").is_some());
    assert!(
        SHARDS[1..4]
            .iter()
            .all(|shard| is_not_run(&all.outcomes[*shard]))
    );
    Ok(())
}

fn a_record_fails_again() -> Result<(), Failed> {
    let folder = Folder::new()?;
    let failed = folder.run("concurrent_histories", [BUG])?;
    let (record, filter) = replayed(&failed.failure(), "QUEUE_CONFORMANCE_RECORD");
    assert_eq!(Path::new(&record).parent(), Some(&*folder.records()));
    let kept = fs::read_dir(folder.records())?.count();
    // Without the bug, because the record is judged and not the backend.
    let again = folder.run(&filter, [("QUEUE_CONFORMANCE_RECORD", &*record)])?;
    assert_eq!(again.order, [SHARDS[4]]);
    assert!(again.failure().contains("==>"), "{}", again.failure());
    assert_eq!(fs::read_dir(folder.records())?.count(), kept, "kept once");
    let all = folder.run("concurrent", [("QUEUE_CONFORMANCE_RECORD", &*record)])?;
    assert!(
        SHARDS[5..]
            .iter()
            .all(|shard| is_not_run(&all.outcomes[*shard]))
    );
    Ok(())
}

fn a_failure_ends_the_run() -> Result<(), Failed> {
    let folder = Folder::new()?;
    let fail_fast = ("QUEUE_CONFORMANCE_FAIL_FAST", "1");
    let run = folder.run("random --test-threads=1", [fail_fast, BUG])?;
    assert_eq!(run.order, &SHARDS[..4]);
    assert!(run.outcomes[SHARDS[0]].get("failed").is_some());
    assert!(
        SHARDS[1..4]
            .iter()
            .all(|shard| is_not_run(&run.outcomes[*shard]))
    );
    assert!(!run.succeeded);
    Ok(())
}

fn is_not_run(outcome: &Value) -> bool {
    outcome.get("not_run").is_some()
}

/// The value of `variable` in the printed command, and the filter of the command.
fn replayed(why: &str, variable: &str) -> (String, String) {
    let (_, command) = why
        .split_once(&format!("{variable}="))
        .unwrap_or_else(|| panic!("there is no command in: {why}"));
    let words: Vec<_> = command.split_whitespace().take(6).collect();
    let [value, cargo, test, flag, target, filter] = words[..] else {
        panic!("the command is incomplete: {why}");
    };
    assert_eq!(
        [cargo, test, flag, target],
        ["cargo", "test", "--test", "replay"]
    );
    (value.to_owned(), filter.trim_end_matches(';').to_owned())
}

/// The output of a run of the suite.
#[derive(Debug)]
struct Output {
    succeeded: bool,
    order: Vec<String>,
    outcomes: BTreeMap<String, Value>,
    printed: String,
}

impl Output {
    fn failure(&self) -> String {
        let mut failures = self.outcomes.values().filter_map(|o| o.get("failed"));
        let why = failures.next().and_then(Value::as_str);
        why.unwrap_or_else(|| panic!("nothing failed: {self:?}"))
            .to_owned()
    }
}

/// A folder for a report and records. Dropping this removes it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path = env::temp_dir().join(format!("queue-replay-{}", Uuid::now_v7()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn records(&self) -> PathBuf {
        self.0.join("records")
    }

    fn run<const N: usize>(
        &self,
        arguments: &str,
        variables: [(&str, &str); N],
    ) -> Result<Output, Failed> {
        let report = self.0.join("report.json");
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments.split(' '))
            .env(IS_THE_TEST, "")
            .env("QUEUE_CONFORMANCE_JSON", &report)
            .env("QUEUE_CONFORMANCE_KEEP", self.records())
            .envs(variables);
        let output = command.output()?;
        let report: Value = serde_json::from_slice(&fs::read(report)?)?;
        let results = report["results"].as_array().expect("it is a list");
        let name = |result: &Value| result["check"].as_str().expect("it is text").to_owned();
        let outcome = |result: &Value| (name(result), result["outcome"].clone());
        Ok(Output {
            succeeded: output.status.success(),
            order: results.iter().map(name).collect(),
            outcomes: results.iter().map(outcome).collect(),
            printed: String::from_utf8_lossy(&output.stdout)
                .split_once("test result")
                .map(|(_, report)| report.lines().skip(1).collect::<Vec<_>>().join("\n"))
                .unwrap_or_default(),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Adds a bug to the backend: every ack is `Applied`.
const BUG: (&str, &str) = ("REPLAY_BACKEND_HAS_A_BUG", "");

struct Memory;

#[async_trait]
impl Harness for Memory {
    async fn store(&self, time: TestTime) -> Result<Arc<dyn Store>, HarnessError> {
        let backend = time.give_to(MemoryBackend::new(), MemoryBackend::with_clock);
        let has_bug = env::var_os(BUG.0).is_some();
        Ok(Arc::new(MemoryStore(Backend { backend, has_bug })))
    }

    fn histories(&self) -> u32 {
        200
    }

    fn capabilities(&self) -> &'static [Capability] {
        &[]
    }
}

struct MemoryStore(Backend);

#[async_trait]
impl Store for MemoryStore {
    async fn connect(&self) -> Result<Connection, HarnessError> {
        Ok(Connection::without_admin(Delegated(self.0.clone())))
    }

    async fn remove(&self) -> Result<(), HarnessError> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Backend {
    backend: MemoryBackend,
    has_bug: bool,
}

#[async_trait]
impl Delegate for Backend {
    type Inner = MemoryBackend;

    fn inner(&self) -> &MemoryBackend {
        &self.backend
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let outcomes = self.backend.ack(queue, receipts).await?;
        Ok(match self.has_bug {
            true => vec![LeaseOutcome::Applied; outcomes.len()],
            false => outcomes,
        })
    }
}
