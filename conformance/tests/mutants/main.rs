//! Proof that the suite rejects broken backends: each bug of the table by the check that is
//! there for it, and no check without a bug.
//!
//! `cargo test --test mutants NackTickEarly` examines one mutant alone.
//! `QUEUE_CONFORMANCE_MATRIX` names a file that what rejects what is written to.

mod admin;
mod backend;
mod bug;
mod file;
mod given;
mod harness;
mod kept;
mod lease;
mod look;
mod matrix;
mod message;
mod settle;
mod state;
mod torn;

use std::{
    env, fs,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use queue_conformance::{Outcome, Report, report};

use crate::{bug::Bug, harness::Mutant, matrix::Matrix, message::Ties};

/// What the suite sets for the processes that it starts in order to kill them.
const CHILD: &str = "QUEUE_CONFORMANCE_CHILD";

/// Where to write the matrix.
const MATRIX: &str = "QUEUE_CONFORMANCE_MATRIX";

/// How many mutants are examined side by side, and on how many threads each: many more than
/// there are processors, because what takes time is waiting, for the patience with a mutant that
/// hangs and in the checks in real time.
const MUTANTS: usize = 8;
const THREADS: usize = 8;

/// Longer than the checks in real time take on a busy machine, and no longer, because every
/// mutant that hangs costs it.
const PATIENCE: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    if env::var_os(CHILD).is_some() {
        // Its bug comes with the store's address.
        return queue_conformance::run(Mutant::new(None, PATIENCE));
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(MUTANTS);
    // A mutant fails checks by the dozen, and each would print its panic.
    std::panic::set_hook(Box::new(|_| {}));
    let matrix = Arc::new(Mutex::new(Matrix::default()));
    let mutants = Bug::ALL.iter().map(|bug| mutant(*bug, &matrix));
    let sound = |ties| Mutant::new(None, CONTROL_PATIENCE).with_ties(ties);
    let controls = [
        control(&matrix),
        passes(
            "the_backend_at_its_least",
            sound(Ties::FirstStored).at_its_least(),
        ),
        passes(
            "the_backend_that_gives_the_last_stored_first",
            sound(Ties::LastStored),
        ),
        passes(
            "the_backend_that_gives_in_order_of_a_hash",
            sound(Ties::Hashed),
        ),
    ];
    let trials: Vec<_> = controls.into_iter().chain(mutants).collect();
    let all = trials.len() as u64;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.num_passed + conclusion.num_failed < all {
        return conclusion.exit_code();
    }
    let matrix = matrix.lock().expect("no holder panics");
    if let Some(path) = env::var_os(MATRIX)
        && let Err(error) = fs::write(&path, matrix.to_markdown())
    {
        eprintln!("{} could not be written: {error}", path.display());
        return ExitCode::FAILURE;
    }
    let idle = matrix.idle_checks();
    if !idle.is_empty() {
        println!("no bug is there for these checks, so nobody knows that they can fail: {idle:#?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// The backend without a bug has all the patience that a backend is given by default: it must
/// not fail by chance.
const CONTROL_PATIENCE: Duration = Duration::from_secs(60);

fn control(matrix: &Arc<Mutex<Matrix>>) -> Trial {
    let matrix = matrix.clone();
    Trial::test("the_backend_without_a_bug_passes", move || {
        let report = report(Mutant::new(None, CONTROL_PATIENCE), THREADS);
        let mut matrix = matrix.lock().expect("no holder panics");
        Ok(matrix.enter_control(&report)?)
    })
}

/// What a backend does not offer, what is beyond its limits, and what the contract leaves open
/// is not asked of it.
fn passes(name: &str, backend: Mutant) -> Trial {
    Trial::test(format!("{name}_passes"), move || {
        let report = report(backend, THREADS);
        match report.passed() {
            true => Ok(()),
            false => Err(Failed::from(report)),
        }
    })
}

fn mutant(bug: Bug, matrix: &Arc<Mutex<Matrix>>) -> Trial {
    let matrix = matrix.clone();
    Trial::test(format!("{bug:?}"), move || {
        let report = report(Mutant::new(Some(bug), PATIENCE), THREADS);
        remove_records(&report);
        let mut matrix = matrix.lock().expect("no holder panics");
        Ok(matrix.enter(bug, &report)?)
    })
}

/// Histories under concurrency that fail are kept as files, for people who look for a bug. Here
/// the bug is known, and there would be hundreds of them.
fn remove_records(report: &Report) {
    for result in &report.results {
        if let Outcome::Failed(why) = &result.outcome
            && let Some((_, path)) = why.split_once("QUEUE_CONFORMANCE_RECORD=")
        {
            // One that is gone already is as good.
            let path = path.split_whitespace().next().unwrap_or_default();
            let _ = fs::remove_file(path);
        }
    }
}
