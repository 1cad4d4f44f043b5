//! Runs the suite: under `cargo test`, or as a function that returns a report.

use std::{
    collections::HashMap,
    env, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::{self, ExitCode},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::time::Instant;

use crate::{
    checks,
    harness::Harness,
    panic_location::{Panic, watch_panics},
    record::child_main,
    report::{CheckResult, Outcome, Report},
    suite::{Item, check_not_offered, items, running_order},
    tally::Counts,
};

/// Names the file for the report as JUnit XML.
const JUNIT: &str = "QUEUE_CONFORMANCE_JUNIT";

/// Names the file for the report as JSON.
const JSON: &str = "QUEUE_CONFORMANCE_JSON";

/// If it is set, what has not begun when something fails is not run.
const FAIL_FAST: &str = "QUEUE_CONFORMANCE_FAIL_FAST";

/// Runs the whole suite: the `main` of a test target.
///
/// It takes the arguments of `cargo test`: a filter, `--list`, `--test-threads` and so on. At the
/// end it prints the result of each line of the contract.
///
/// Every backend has the same list of tests. A check of a capability that the harness does not
/// offer is marked as not offered. It fails if the harness could offer it. Tests are ignored only
/// if an environment variable leaves them nothing to run; the reason is printed.
///
/// `QUEUE_CONFORMANCE_JUNIT` and `QUEUE_CONFORMANCE_JSON` name files for the report. If
/// `QUEUE_CONFORMANCE_FAIL_FAST` is set, what has not begun when a test fails is not run.
pub fn run(harness: impl Harness) -> ExitCode {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    if let Some(ended) = child_main(&*harness) {
        return ended;
    }
    watch_panics(checks::source);
    let arguments = Arguments::from_args();
    let run = Arc::new(Run::new(harness));
    let report = Arc::new(Mutex::new(Vec::new()));
    let trials = running_order().into_iter();
    let trials = trials.map(|item| trial(item, &run, &report)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.list {
        return conclusion.exit_code();
    }
    let results = std::mem::take(&mut *report.lock().expect("no holder panics"));
    let report = in_order(results);
    println!("{report}");
    if let Err(error) = write_files(&report) {
        eprintln!("the report cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Runs the suite on this many threads and returns a report: for tools and for tests of the suite. If
/// `only` is not empty, runs only the checks whose names have one of these texts.
///
/// If the harness offers [`Capability::Processes`](crate::Capability::Processes), call this at the
/// beginning of `main`. In the processes that the suite starts, it does not return.
pub fn report(harness: impl Harness, threads: usize, only: &[&str]) -> Report {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    if child_main(&*harness).is_some() {
        process::exit(0);
    }
    watch_panics(checks::source);
    let is_wanted = |item: &Item| {
        let name = item.name();
        only.is_empty() || only.iter().any(|part| name.contains(part))
    };
    let queue = Mutex::new(running_order().into_iter().filter(is_wanted));
    let next = || queue.lock().expect("taking an item does not panic").next();
    let run = Run::new(harness);
    let results = thread::scope(|scope| {
        let worker = || {
            let results = std::iter::from_fn(next).map(|item| run.item(item));
            results.collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        let done = workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("items catch panics"));
        done.collect::<Vec<_>>()
    });
    in_order(results)
}

/// Sorts the results in the order of the suite.
fn in_order(results: Vec<CheckResult>) -> Report {
    let order = items()
        .map(Item::name)
        .zip(0..)
        .collect::<HashMap<_, u32>>();
    let mut report = Report { results };
    report
        .results
        .sort_by_key(|result| order.get(&result.check).copied());
    report
}

fn trial(item: Item, run: &Arc<Run>, results: &Arc<Mutex<Vec<CheckResult>>>) -> Trial {
    let (run, results) = (run.clone(), results.clone());
    let runner = move || {
        let result = run.item(item);
        let outcome = result.outcome.clone();
        results.lock().expect("no holder panics").push(result);
        match outcome {
            Outcome::Failed(why) => Err(Failed::from(why)),
            Outcome::NotRun(why) => Ok(Completion::ignored_with(why)),
            Outcome::Passed | Outcome::NotOffered(_) => Ok(Completion::Completed),
        }
    };
    Trial::ignorable_test(item.name(), runner)
}

/// What the items of a run share.
struct Run {
    harness: Arc<dyn Harness>,
    fails_fast: bool,
    has_failed: AtomicBool,
}

impl Run {
    fn new(harness: Arc<dyn Harness>) -> Self {
        Self {
            harness,
            fails_fast: env::var_os(FAIL_FAST).is_some(),
            has_failed: AtomicBool::new(false),
        }
    }

    fn item(&self, item: Item) -> CheckResult {
        let started = Instant::now();
        let mut did = Counts::new();
        let run = || {
            if self.fails_fast && self.has_failed.load(Ordering::Relaxed) {
                return Ok(Outcome::NotRun(format!(
                    "a test failed, and {FAIL_FAST} is set"
                )));
            }
            match item.not_offered_by(&*self.harness) {
                Some(capability) => check_not_offered(&*self.harness, capability)
                    .map(|()| Outcome::NotOffered(capability.to_string())),
                None => item.run(&self.harness, &mut did),
            }
        };
        // Checks catch panics where they can clean up. This is for a panic anywhere else.
        let ran = catch_unwind(AssertUnwindSafe(run));
        let ran = ran.unwrap_or_else(|panic| Err(Panic::of(panic).to_string()));
        if ran.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        CheckResult {
            line: item.line().map(|line| line.code()),
            check: item.name(),
            outcome: ran.unwrap_or_else(Outcome::Failed),
            took_ms: started.elapsed().as_millis() as u64,
            did,
        }
    }
}

fn write_files(report: &Report) -> io::Result<()> {
    if let Some(path) = env::var_os(JUNIT) {
        fs::write(PathBuf::from(path), report.to_junit())?;
    }
    if let Some(path) = env::var_os(JSON) {
        fs::write(PathBuf::from(path), report.to_json())?;
    }
    Ok(())
}
