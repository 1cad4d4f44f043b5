//! Every state of a small model of the protocol: processes that lease, settle and enqueue the same
//! messages, a database that fails over, lost answers, late commands. None may break the contract, and
//! each deliberate mistake must. The model runs `entry.rs`, `uses.rs` and `written.rs` themselves.
//!
//! CONTRIBUTING.md says how to run it.

mod database;
mod model;
mod protocol;
mod runs;

// The pure code of the crate. Parts of it are for calls that the model does not have.
#[allow(dead_code, unused_imports)]
#[path = "../../src/document"]
mod document {
    pub(crate) mod entry;
    pub(crate) mod receipt;
}
#[allow(dead_code, unused_imports)]
#[path = "../../src/store"]
mod store {
    pub(crate) mod written;
}
#[path = "../../src/calls"]
mod calls {
    pub(crate) mod uses;
}

use std::{env, process::ExitCode, sync::Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use stateright::{Checker, HasDiscoveries, Model};
use tokio::time::Instant;

use crate::runs::{BUGS, Run};

/// `all`, or the run to explore alone. Otherwise a quick share is explored.
const RUN: &str = "QUEUE_MODEL";

/// A line for each run: how many states it has, or how many until the mistake does harm.
static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Explores a run until a line of the contract is broken. Returns which, and the steps to there.
fn explore(run: Run) -> Option<String> {
    let began = Instant::now();
    let (name, bug) = (run.name, format!("{:?}", run.bug));
    let checker = run.checker().finish_when(HasDiscoveries::Any);
    // One thread finds a shortest way.
    let checked = checker.spawn_bfs().join();
    let (states, took) = (checked.unique_state_count(), began.elapsed());
    let row = format!("{name:<20}{bug:<20}{states:>10} states{took:>10.1?}");
    TABLE.lock().expect("no panic").push(row);
    let path = checked.discoveries().into_values().next()?;
    let broken = path.last_state().broken.unwrap_or_default();
    let steps = path.into_actions().into_iter();
    let steps: String = steps.map(|step| format!("\n  {step:?}")).collect();
    Some(format!("{broken}{steps}"))
}

/// The run holds, or its mistake breaks the line that it must.
fn judge(run: Run, expected: Option<&str>) -> Result<(), Failed> {
    let name = run.name;
    match (explore(run), expected) {
        (None, None) => Ok(()),
        (Some(found), Some(line)) if found.starts_with(line) => Ok(()),
        (found, _) => {
            let found = found.unwrap_or("nothing".to_owned());
            let test = "cargo test -p queue-docdb --test protocol_model";
            Err(format!("{RUN}={name} {test}\nexpected {expected:?}, found {found}").into())
        }
    }
}

fn main() -> ExitCode {
    let wanted = env::var(RUN).unwrap_or_default();
    let share = Run::wanted(&wanted);
    assert!(
        !share.is_empty(),
        "{RUN} is {wanted}; it must be `all` or the name of a run"
    );
    let mut trials = Vec::new();
    for run in share {
        for &(bug, _, line) in BUGS.iter().filter(|it| it.1 == run.name) {
            let name = format!("{}/{bug:?}", run.name);
            let run = Run { bug, ..run.clone() };
            trials.push(Trial::test(name, move || judge(run, Some(line))));
        }
        trials.push(Trial::test(run.name, move || judge(run, None)));
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    let mut table = TABLE.lock().expect("no panic");
    table.sort();
    println!("{}", table.join("\n"));
    conclusion.exit_code()
}
