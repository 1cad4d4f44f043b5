//! Consumers and callers of a store that fails: at each call, in every way.

mod calls;
mod case;
mod code;
mod enqueue_all;
mod listener;
mod observers;
mod service;
mod subject;
mod worker;
mod world;

use std::{
    collections::BTreeMap,
    env, panic,
    process::{self, ExitCode},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{case::Case, code::PanicsAgain, subject::Subject, world::World};

/// Runs only cases whose names begin with this.
const VARIABLE: &str = "QUEUE_FAILING";

/// Longer than any case takes, in virtual time.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Much longer than any case takes in real time, which is less than a second.
const LONGEST: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let injected = info.payload().is::<PanicsAgain>()
            || info
                .payload_as_str()
                .is_some_and(|text| text.contains("a fault of the test"));
        if !injected {
            hook(info);
        }
    }));
    let only = env::var(VARIABLE).unwrap_or_default();
    let mut cases = Subject::ALL.into_iter().flat_map(Case::all);
    assert!(
        cases.any(|case| case.to_string().starts_with(&only)),
        "{VARIABLE} is {only}; it must begin a case, such as Worker/Lease/Before-Internal/0/once"
    );
    let trial = |subject| Trial::test(format!("{subject:?}"), move || run_all(subject));
    let trials = Subject::ALL.map(trial).into();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs all cases of a subject. Prints how many met their fault.
fn run_all(subject: Subject) -> Result<(), Failed> {
    let only = env::var(VARIABLE).unwrap_or_default();
    let mut failures = Vec::new();
    let mut met: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for case in Case::all(subject) {
        let name = case.to_string();
        if !name.starts_with(&only) {
            continue;
        }
        let watched = watch(&name);
        let (met_trouble, problems) = run(case);
        drop(watched);
        let counts = met.entry(case.trouble.call()).or_default();
        counts.0 += usize::from(met_trouble);
        counts.1 += 1;
        if !problems.is_empty() {
            let command = command(&name);
            failures.push(format!("{command}\n    {}", problems.join("\n    ")));
        }
    }
    for (operation, (met, all)) in &met {
        println!("{subject:?}: {met} of {all} cases met trouble at {operation}");
        // One case alone need not meet it.
        if *met == 0 && only.is_empty() {
            failures.push(format!("{subject:?}: no case met trouble at {operation}"));
        }
    }
    match failures.len() {
        0 => Ok(()),
        wrong => Err(format!("{wrong} cases failed:\n{}", failures.join("\n")).into()),
    }
}

/// Ends the test if a case takes too long. Virtual time does not pass in a busy loop.
fn watch(name: &str) -> mpsc::Sender<()> {
    let (sender, ended) = mpsc::channel();
    let command = command(name);
    thread::spawn(move || {
        if ended.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{command}\n    it takes longer than {LONGEST:?} of real time");
            process::exit(1);
        }
    });
    sender
}

fn command(name: &str) -> String {
    format!("{VARIABLE}={name} cargo test -p queue-api --test failing")
}

/// Runs a case in virtual time. Returns whether its fault was met, and what is wrong.
fn run(case: Case) -> (bool, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("it can be built");
    let (met, problems) = runtime.block_on(async {
        let world = World::new(case);
        let observed = world.code.place();
        let observed = observed.filter(|one| one.is_of("Recorder") || one.is_of("Subscriber"));
        let recording = observed.map(|_| metrics::set_default_local_recorder(&world.code));
        let subscribed = observed.map(|_| queue_test_support::subscribe(world.code.clone()));
        let subject = world.clone();
        let running = tokio::spawn(async move { case.subject.run(&subject).await });
        let problem = match tokio::time::timeout(DAY, running).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the subject panicked: {error}")),
            Err(_) => Some("the subject hangs".to_owned()),
        };
        drop((recording, subscribed));
        world.judge_errors();
        let problems = std::mem::take(&mut world.known().problems);
        let mut problems: Vec<_> = problems.into_iter().collect();
        problems.extend(problem);
        (world.met() > 0, problems)
    });
    runtime.shutdown_background();
    (met, problems)
}
