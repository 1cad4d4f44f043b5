//! Every state of a small model of the protocol: processes that lease, settle and enqueue the same
//! messages, a database that fails over, lost answers, late commands. None may break the contract, and
//! each deliberate mistake must. The model runs `entry.rs`, `uses.rs` and `written.rs` themselves.
//!
//! `runs.txt` has what is explored. CONTRIBUTING.md says how to run it.

mod model;
mod protocol;

// The pure code of the crate. Parts of it are for calls that the model does not have.
#[allow(dead_code, unused_imports)]
#[path = "../../src/document"]
mod document {
    pub(crate) mod entry;
    pub(crate) mod receipt;
}
#[allow(dead_code)]
#[path = "../../src/store"]
mod store {
    pub(crate) mod written;
}
#[path = "../../src/calls"]
mod calls {
    pub(crate) mod uses;
}

use std::{env, process::ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use stateright::{Checker, Model};

/// A line of `runs.txt`.
#[derive(Clone, Debug, Default)]
struct Run {
    name: &'static str,
    /// How much may happen: ticks of the clock, lost answers, failovers.
    limits: Vec<u8>,
    stock: Vec<Vec<usize>>,
    /// Of each process the calls, and of each call the choices.
    processes: Vec<Vec<Vec<&'static str>>>,
    /// The mistake, by name.
    bug: &'static str,
}

impl Run {
    fn parse(line: &'static str) -> Self {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let choices = |call: &'static str| call.split('/').collect();
        let calls = |text: &&'static str| text.split(' ').map(choices).collect();
        Self {
            name: fields[0],
            limits: fields[1].bytes().map(|digit| digit - b'0').collect(),
            stock: entries(fields[2]),
            processes: fields[3..].iter().map(calls).collect(),
            bug: "none",
        }
    }
}

/// Message ids, by entry.
fn entries(text: &str) -> Vec<Vec<usize>> {
    let ids = |entry: &str| entry.bytes().map(|id| usize::from(id - b'0')).collect();
    text.split_terminator(',').map(ids).collect()
}

/// Explores a run until it breaks a line of the contract, which must be the expected one. Prints how many
/// states the run has, or how many came before that.
fn explore(run: Run, expected: &str) -> Result<(), Failed> {
    let (name, bug) = (run.name, run.bug);
    // One thread finds a shortest way.
    let checked = run.checker().spawn_bfs().join();
    let states = checked.unique_state_count();
    println!("{name:<23}{bug:<20}{states:>10} states");
    let found = match checked.discovery("contract") {
        Some(path) => format!("{}\n{path}", path.last_state().broken.unwrap_or_default()),
        None => "nothing".to_owned(),
    };
    assert!(found.starts_with(expected), "not {expected}: {found}");
    Ok(())
}

fn main() -> ExitCode {
    let is_all = env::var("QUEUE_MODEL").is_ok_and(|runs| runs == "all");
    let (mut run, mut trials) = (Run::default(), Vec::new());
    for line in include_str!("runs.txt").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (next, expected) = match words[..] {
            [] | ["#", ..] => continue,
            ["!", expected, bug, ..] => (Run { bug, ..run.clone() }, expected),
            _ => (Run::parse(line), "nothing"),
        };
        run = next.clone();
        let name = format!("{}/{}", run.name, run.bug);
        if is_all || !run.name.starts_with("long") {
            trials.push(Trial::test(name, move || explore(next, expected)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
