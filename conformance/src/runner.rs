//! Runs the suite: under `cargo test`, or as a function that gives a report.

use std::{
    collections::HashMap,
    env, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::{self, ExitCode},
    sync::{Arc, Mutex},
    thread,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::time::Instant;

use crate::{
    harness::Harness,
    panic_location::{Panic, watch_panics},
    record::child_main,
    report::{Outcome, Report, Verdict},
    suite::{Item, is_honest, items},
};

/// Where to write the report as JUnit XML.
const JUNIT: &str = "QUEUE_CONFORMANCE_JUNIT";

/// Where to write the report as JSON.
const JSON: &str = "QUEUE_CONFORMANCE_JSON";

/// Runs the whole suite on the backend of `harness`: the `main` of a test target.
///
/// It takes the arguments of `cargo test`: a filter, `--list`, `--test-threads` and so on.
/// Afterwards it prints the contract's lines with what became of each. The list of tests is the
/// same for every backend, and none is ignored: one that is about what the harness does not offer
/// is marked so in the report, and fails if the backend could have been judged after all.
///
/// The environment variables `QUEUE_CONFORMANCE_JUNIT` and `QUEUE_CONFORMANCE_JSON` name files
/// that the report is written to as well.
pub fn run(harness: impl Harness) -> ExitCode {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    if let Some(ended) = child_main(&*harness) {
        return ended;
    }
    watch_panics();
    let arguments = Arguments::from_args();
    let report = Arc::new(Mutex::new(Vec::new()));
    let trials = items().map(|item| trial(item, &harness, &report)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.list {
        return conclusion.exit_code();
    }
    let verdicts = std::mem::take(&mut *report.lock().expect("no verdict panics"));
    let report = in_order(verdicts);
    println!("{report}");
    if let Err(error) = write_files(&report) {
        eprintln!("the report could not be written: {error}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Runs the whole suite on the backend of `harness`, on so many threads, and tells what became
/// of it: for tools, and for tests of the suite itself.
///
/// A harness that offers [`Capability::Processes`](crate::Capability::Processes) has this called at the
/// beginning of `main`: in the processes that the suite starts, it does not return.
pub fn examine(harness: impl Harness, threads: usize) -> Report {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    if child_main(&*harness).is_some() {
        process::exit(0);
    }
    watch_panics();
    let queue = Mutex::new(items().collect::<Vec<_>>().into_iter());
    let next = || queue.lock().expect("taking an item does not panic").next();
    let verdicts = thread::scope(|scope| {
        let worker = || {
            let judged = std::iter::from_fn(next).map(|item| judge(item, &harness));
            judged.collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        let done = workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("items catch panics"));
        done.collect::<Vec<_>>()
    });
    in_order(verdicts)
}

/// The report, in the order of the suite.
fn in_order(verdicts: Vec<Verdict>) -> Report {
    let place = items()
        .map(Item::name)
        .zip(0..)
        .collect::<HashMap<_, u32>>();
    let mut report = Report { verdicts };
    report
        .verdicts
        .sort_by_key(|verdict| place.get(&verdict.check).copied());
    report
}

fn trial(item: Item, harness: &Arc<dyn Harness>, verdicts: &Arc<Mutex<Vec<Verdict>>>) -> Trial {
    let (harness, verdicts) = (harness.clone(), verdicts.clone());
    let run = move || {
        let verdict = judge(item, &harness);
        let outcome = verdict.outcome.clone();
        verdicts.lock().expect("no verdict panics").push(verdict);
        match outcome {
            Outcome::Failed(why) => Err(Failed::from(why)),
            Outcome::Passed | Outcome::NotOffered(_) | Outcome::NotRun(_) => Ok(()),
        }
    };
    Trial::test(item.name(), run)
}

fn judge(item: Item, harness: &Arc<dyn Harness>) -> Verdict {
    let started = Instant::now();
    let run = || match item.not_offered_by(&**harness) {
        Some(capability) => {
            is_honest(&**harness, capability).map(|()| Outcome::NotOffered(capability.to_string()))
        }
        None => item.run(harness),
    };
    // Each part is guarded where it can clean up; what is left is what nobody thought of.
    let ran = catch_unwind(AssertUnwindSafe(run));
    let ran = ran.unwrap_or_else(|panic| Err(Panic::of(panic).to_string()));
    Verdict {
        line: item.line().map(|line| line.code()),
        check: item.name(),
        outcome: ran.unwrap_or_else(Outcome::Failed),
        took_ms: started.elapsed().as_millis() as u64,
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
