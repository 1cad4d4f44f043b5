//! The fault explorer: every message of every call meets every fault, and other processes make the
//! worst move meanwhile. Processes are killed and suspended there, too. It knows the contract and
//! the wire, and nothing of the backend's inside.
//!
//! CONTRIBUTING.md says how to run it and how to read its table.

mod adversary;
mod agenda;
mod calls;
mod cancelled;
mod case;
mod child;
mod codes;
mod connection;
mod drain;
mod failover;
mod fates;
mod forge;
mod late;
mod log;
mod look;
mod plan;
mod proxy;
mod record;
mod rounds;
mod schedule;
mod server;
mod table;
mod transact;
mod truth;
mod undo;
mod wire;

use std::{
    collections::{BTreeMap, HashMap},
    env, fmt,
    process::ExitCode,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{StreamExt, future, stream};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{OnceCell, Semaphore},
    time::Instant,
};

use crate::{
    adversary::Adversary,
    calls::{CALLS, Call},
    case::{Case, Report},
    child::child_main,
    fates::{FATES, Fate},
    plan::Share,
    schedule::Request,
    server::{CLIENTS, ClientKind, Server},
    table::Table,
};

/// `all`, or the case to run alone. Otherwise a quick share is run.
const CASES: &str = "QUEUE_FAULTS";

/// The seed by which cases are drawn.
const SEED: &str = "QUEUE_FAULTS_SEED";

/// How many cases run side by side. Most of them wait for a timeout.
const AT_A_TIME: u32 = 72;

/// A case whose adversary is late runs at most this often.
const LATE_TRIES: usize = 2;

/// How many failures of a call are quoted.
const QUOTED: usize = 3;

/// All cases share it, as the server's clients are bound to one.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().build().expect("a runtime")
    })
}

/// What all calls share.
struct Run {
    share: Share,
    seed: u64,
    permits: Semaphore,
    table: Mutex<Table>,
    undisturbed: Mutex<HashMap<Call, Arc<OnceCell<Undisturbed>>>>,
    /// Whether the server has ended, so that no case can be run.
    is_over: AtomicBool,
}

/// How a call goes when nothing happens.
#[derive(Default)]
struct Undisturbed {
    requests: Vec<(ClientKind, Vec<Request>)>,
    wrong: Vec<String>,
}

impl Run {
    /// Runs a case. Repeats it if it was slow or failed without a reason, at last alone, or if its adversary was
    /// late.
    async fn case(&self, case: &Case) -> Report {
        let server = Server::shared().await;
        let mut report = Report::default();
        for (tries, at_a_time) in (1..).zip([1, 1, 1, AT_A_TIME]) {
            let permits = self.permits.acquire_many(at_a_time).await;
            let _permits = permits.expect("it is not closed");
            if self.is_over.load(Ordering::Relaxed) {
                report.wrong.push("not run: the server is gone".to_owned());
                return report;
            }
            let wrong = std::mem::take(&mut report.wrong);
            report = case.run(server, None).await;
            report.wrong.extend(wrong);
            // An open transaction holds up the adversary each time, and others may do so, too.
            let may_be_late = case.call == Call::Transaction || tries >= LATE_TRIES;
            if report.slow.is_empty() && (may_be_late || !report.is_adversary_late) {
                break;
            }
            self.table.lock().expect("no panic").repeated += 1;
            if at_a_time == AT_A_TIME && !server.answers().await {
                self.is_over.store(true, Ordering::Relaxed);
            }
        }
        report.wrong.append(&mut report.slow);
        self.table.lock().expect("no panic").add(case, &report);
        report
    }

    /// Runs the cases of all calls, in which a process meets this fate.
    async fn fate(&self, fate: Fate) -> Result<(), Failed> {
        let calls = CALLS.into_iter().map(|(call, _)| call);
        // Only a message ends that wait, and the fates send none.
        let calls = calls.filter(|call| *call != Call::WaitEmpty);
        let explored =
            calls.map(async |call| fates::explore(fate, call, self.share, &self.permits).await);
        let (mut met, mut wrong) = (0, Vec::new());
        for (cases, why) in future::join_all(explored).await {
            met += cases;
            wrong.extend(why);
        }
        println!("{fate}: {met} cases");
        failed_unless_empty(&wrong)
    }

    /// All calls while the primary of a replica set fails.
    async fn failovers(&self) -> Result<(), Failed> {
        let mut cases = Vec::new();
        for (call, _) in CALLS {
            // What is wrong with it, the test of the call says.
            let undisturbed = self.undisturbed(call);
            let requests = &undisturbed
                .get_or_init(|| self.run_undisturbed(call))
                .await
                .requests;
            cases.extend(plan::failovers(call, requests, self.share, self.seed));
        }
        // So that elections do not take too long. A few rounds may be made beside other cases.
        let _permits = match self.share {
            Share::Quick => None,
            Share::All => Some(self.permits.acquire_many(AT_A_TIME).await),
        };
        let mut wrong = Vec::new();
        for (case, report) in rounds::run(cases).await? {
            self.table.lock().expect("no panic").add(&case, &report);
            tell_if_wrong(&case, &report);
            if !report.wrong.is_empty() {
                wrong.push(failure(&case, &report));
            }
        }
        failed_unless_empty(&wrong)
    }

    fn undisturbed(&self, call: Call) -> Arc<OnceCell<Undisturbed>> {
        let mut all = self.undisturbed.lock().expect("no panic");
        all.entry(call).or_default().clone()
    }

    /// By both kinds of clients.
    async fn run_undisturbed(&self, call: Call) -> Undisturbed {
        let mut undisturbed = Undisturbed::default();
        for (client, _) in CLIENTS {
            let case = Case {
                call,
                client,
                at: 0,
                faults: Vec::new(),
                adversary: Adversary::Nothing,
            };
            let report = self.case(&case).await;
            if !report.wrong.is_empty() {
                let why = format!("undisturbed: {}", report.wrong.join("\n"));
                undisturbed.wrong.push(why);
            }
            let mut requests = report.requests;
            if call == Call::WaitEmpty {
                // On a busy machine the message comes late, and the wait polls more often.
                requests.truncate(3);
            }
            undisturbed.requests.push((client, requests));
        }
        undisturbed
    }

    /// All cases of a call.
    async fn call(&self, call: Call) -> Result<(), Failed> {
        let undisturbed = self.undisturbed(call);
        let Undisturbed { requests, wrong } =
            undisturbed.get_or_init(|| self.run_undisturbed(call)).await;
        let mut wrong = wrong.clone();
        let cases = plan::cases(call, requests, self.share, self.seed);
        if cases.is_empty() {
            return Err(format!("{call} sends nothing: {requests:?}").into());
        }
        let reports = stream::iter(&cases).map(async |case| {
            let report = self.case(case).await;
            tell_if_wrong(case, &report);
            (case, report)
        });
        let reports: Vec<_> = reports.buffer_unordered(AT_A_TIME as usize).collect().await;
        for (case, report) in &reports {
            if !report.wrong.is_empty() {
                wrong.push(failure(case, report));
            }
        }
        wrong.extend(self.requests_without_fault(&reports).await);
        if wrong.is_empty() {
            return Ok(());
        }
        let more = wrong.len().saturating_sub(QUOTED);
        wrong.truncate(QUOTED);
        Err(format!("{}\n\nand {more} more", wrong.join("\n\n")).into())
    }

    /// The requests of a call at which no case has met its fault.
    async fn requests_without_fault(&self, reports: &[(&Case, Report)]) -> Vec<String> {
        let mut points = BTreeMap::new();
        for (case, report) in reports {
            let (_, is_met) = points
                .entry((case.client, case.at))
                .or_insert((*case, false));
            *is_met |= !report.met.is_empty();
        }
        let unmet: Vec<&Case> = points
            .into_values()
            .filter(|(_, is_met)| !is_met)
            .map(|(case, _)| case)
            .collect();
        let mut wrong = Vec::new();
        for case in unmet {
            // On a busy machine, the undisturbed call may have sent more requests.
            let has_request = self.run_undisturbed(case.call).await.requests;
            let has_request = has_request
                .iter()
                .any(|(client, requests)| *client == case.client && case.at < requests.len());
            if has_request && self.case(case).await.met.is_empty() {
                wrong.push(format!(
                    "{}\nno case met its fault here",
                    replay_command(case)
                ));
            }
        }
        wrong
    }
}

fn failed_unless_empty(wrong: &[String]) -> Result<(), Failed> {
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n\n").into()),
    }
}

/// At once, because a run of all cases takes long.
fn tell_if_wrong(case: &Case, report: &Report) {
    if !report.wrong.is_empty() {
        eprintln!("wrong: {}", replay_command(case));
    }
}

/// The command that runs a case again.
pub(crate) fn replay_command(case: impl fmt::Display) -> String {
    format!("{CASES}={case} cargo test -p queue-docdb --test faults")
}

fn failure(case: &Case, report: &Report) -> String {
    format!(
        "{}\nmet: {:?}, answer: {:?}\n{}",
        replay_command(case),
        report.met,
        report.answer,
        [report.wrong.join("\n"), report.slow.join("\n")].concat()
    )
}

/// Runs one case, as a failure names it.
fn alone(name: &str) -> Trial {
    if let Some((fate, case)) = fates::parse(name) {
        return Trial::test("replay", move || {
            let outcome = runtime().block_on(fates::replay(fate, &case));
            println!("{outcome:#?}");
            failed_unless_empty(&[outcome.why, outcome.slow].concat())
        });
    }
    let case = Case::parse(name);
    let text = format!(
        "{CASES} is {name}; it must be `all`, or a case such as ack/own/0/reply_lost/nothing"
    );
    Trial::test("replay", move || {
        let case = case.ok_or(text)?;
        let report = runtime().block_on(async {
            match case.is_failover() {
                true => rounds::replay(&case).await,
                false => Ok(case.run(Server::shared().await, None).await),
            }
        });
        let report = report?;
        println!("{report:#?}");
        match report.wrong.is_empty() && report.slow.is_empty() {
            true => Ok(()),
            false => Err(failure(&case, &report).into()),
        }
    })
}

fn main() -> ExitCode {
    if let Some(ended) = child_main() {
        return ended;
    }
    let arguments = Arguments::from_args();
    let wanted = env::var(CASES).unwrap_or_default();
    let share = match wanted.as_str() {
        "" => Share::Quick,
        "all" => Share::All,
        name => return libtest_mimic::run(&arguments, vec![alone(name)]).exit_code(),
    };
    let seed = env::var(SEED).map(|seed| seed.parse().expect("a seed is a number"));
    let seed = seed.unwrap_or(match share {
        Share::Quick => 1,
        Share::All => fastrand::u64(..),
    });
    let run = Arc::new(Run {
        share,
        seed,
        permits: Semaphore::new(AT_A_TIME as usize),
        table: Mutex::default(),
        undisturbed: Mutex::default(),
        is_over: AtomicBool::new(false),
    });
    let trials = CALLS.into_iter().map(|(call, name)| {
        let run = run.clone();
        Trial::test(name, move || runtime().block_on(run.call(call)))
    });
    let fates = FATES.into_iter().map(|(fate, name)| {
        let run = run.clone();
        Trial::test(name, move || runtime().block_on(run.fate(fate)))
    });
    let failovers = {
        let run = run.clone();
        Trial::test("primary_fails_during_each_call", move || {
            runtime().block_on(run.failovers())
        })
    };
    let cancelled = Trial::test("a_thousand_tasks_cancelled_at_once", || {
        let wrong = runtime().block_on(cancelled::cancel_all());
        failed_unless_empty(&wrong.map_err(|error| format!("{error:#}"))?)
    });
    let trials: Vec<Trial> = fates.chain([cancelled, failovers]).chain(trials).collect();
    let mut arguments = arguments;
    // They share the permits.
    arguments.test_threads = Some(trials.len());
    let began = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        println!("{}", run.table.lock().expect("no panic"));
        println!("{SEED}={seed}, in {:.0?}", began.elapsed());
    }
    conclusion.exit_code()
}
