//! A process is killed or suspended in the middle of a call, or its runtime is dropped.
//!
//! At each request of each call; in the quick share, at a third of them. Nothing confirmed is lost,
//! nothing acked comes again, and what was not acked comes back after its visibility timeout.

use std::{collections::BTreeMap, fmt, io, sync::Arc, time::Duration};

use futures::future;
use queue_api::{Error, ErrorKind, Result};
use queue_conformance::record::{Call as RecordedCall, Operation, judge};
use tokio::{runtime::Builder, sync::Semaphore, time::timeout};

use crate::{
    adversary::Adversary,
    calls::Call,
    case::{Case, HANGS},
    child::{Child, News, Order, Task},
    drain::drain,
    log::{Leased, Party, World},
    plan::Share,
    proxy::{Proxy, pause},
    record::record_case,
    replay_command,
    schedule::{Fault, TIMEOUT},
    server::{ClientKind, Server},
};

/// What becomes of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Killed,
    /// For longer than its leases, and in most cases than its operation timeout.
    Suspended,
    RuntimeDropped,
}

pub(crate) const FATES: [(Fate, &str); 3] = [
    (Fate::Killed, "killed_during_each_call"),
    (Fate::Suspended, "suspended_during_each_call"),
    (Fate::RuntimeDropped, "runtime_dropped_during_each_call"),
];

/// How many requests of a call are tried side by side.
const AT_A_TIME: usize = 4;

/// How many cases one with a process of its own counts for.
const PERMITS: u32 = 4;

/// The operation timeout of a process that is suspended.
const SHORT: Duration = Duration::from_millis(1000);

/// The request may arrive later, be carried out, or neither.
const FAULTS: [Fault; 3] = [Fault::Pause, Fault::PauseAfter, Fault::RequestLost];

const ADVERSARIES: [Adversary; 3] = [
    Adversary::OtherAcksLater,
    Adversary::Nothing,
    Adversary::OtherLeasesLater,
];

/// The cases of a request: all, or in the quick share one of one fate.
fn combinations(fate: Fate, call: Call, at: usize, share: Share) -> Vec<(Fault, Adversary)> {
    let is_drawn = |fate: Fate| (call as usize + at) % FATES.len() == fate as usize;
    let all = FAULTS
        .into_iter()
        .flat_map(|fault| ADVERSARIES.map(|adversary| (fault, adversary)));
    let all: Vec<_> = all.collect();
    match share {
        Share::Quick if !is_drawn(fate) => Vec::new(),
        // Neighbours differ in both.
        Share::Quick => vec![all[(call as usize + at * 4) % all.len()]],
        Share::All => all,
    }
}

/// Runs a case, and again if it failed without a reason: at last alone.
async fn explore_one(fate: Fate, case: &Case, permits: &Semaphore) -> Outcome {
    let mut outcome = Outcome::default();
    for at_a_time in [PERMITS, PERMITS, PERMITS, crate::AT_A_TIME] {
        let permits = permits.acquire_many(at_a_time).await;
        let _permits = permits.expect("it is not closed");
        let why = std::mem::take(&mut outcome.why);
        outcome = replay(fate, case).await;
        outcome.why.extend(why);
        if outcome.slow.is_empty() {
            break;
        }
    }
    outcome.why.append(&mut outcome.slow);
    outcome
}

/// Runs all cases of a call. Returns how many met their request, and what was wrong.
pub(crate) async fn explore(
    fate: Fate,
    call: Call,
    share: Share,
    permits: &Semaphore,
) -> (usize, Vec<String>) {
    let (mut met, mut wrong) = (0, Vec::new());
    for first in (0..).step_by(AT_A_TIME) {
        let requests = first..first + AT_A_TIME;
        let cases = requests.flat_map(|at| {
            let combinations = combinations(fate, call, at, share).into_iter();
            combinations.map(move |(fault, adversary)| Case {
                call,
                client: ClientKind::Own,
                at,
                faults: vec![fault],
                adversary,
            })
        });
        let outcomes = cases.map(async |case| {
            let Outcome { is_met, why, .. } = explore_one(fate, &case, permits).await;
            let wrong = (!why.is_empty()).then(|| {
                let command = replay_command(format!("{fate}/{case}"));
                format!("{command}\n{}", why.join("\n"))
            });
            (is_met, wrong)
        });
        let outcomes = future::join_all(outcomes).await;
        let is_end = outcomes.iter().any(|(is_met, _)| !is_met);
        for (is_met, why) in outcomes {
            met += usize::from(is_met);
            wrong.extend(why);
        }
        if is_end {
            break;
        }
    }
    (met, wrong)
}

/// A case, as a failure names it after its fate.
pub(crate) fn parse(name: &str) -> Option<(Fate, Case)> {
    let (first, case) = name.split_once('/')?;
    let (fate, _) = FATES.iter().find(|(_, name)| *name == first)?;
    Some((*fate, Case::parse(case)?))
}

/// Runs one case.
pub(crate) async fn replay(fate: Fate, case: &Case) -> Outcome {
    run(fate, case).await.unwrap_or_else(|error| Outcome {
        slow: vec![format!("an undisturbed call failed: {error:?}")],
        ..Outcome::default()
    })
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Whether the call had this request.
    pub(crate) is_met: bool,
    pub(crate) why: Vec<String>,
    /// What is wrong, unless the machine was too busy.
    pub(crate) slow: Vec<String>,
}

/// One case. The process is on its own clock, which stands still while it is suspended.
async fn run(fate: Fate, case: &Case) -> Result<Outcome> {
    let server = Server::shared().await;
    let database = server.database(case.call.is_first());
    let world = Arc::new(World::new(&database));
    let other = server.undisturbed("other", &database, &world).await?;
    if !case.call.is_first() {
        other.backend.prepare(&world.queue).await?;
    }
    let scene = Scene {
        case,
        proxy: Proxy::start(server.primary(), None).await,
        adversary: server.undisturbed("adversary", &database, &world).await?,
        other,
        world,
    };
    let mut why = Vec::new();
    let calls = match fate {
        Fate::RuntimeDropped => scene.drop_runtime(&mut why).await?,
        Fate::Killed | Fate::Suspended => {
            let told = scene.child(fate, &mut why).await;
            if let Err(error) = &told
                && error.kind() == io::ErrorKind::TimedOut
            {
                why.push("the process hangs".to_owned());
                return Ok(Outcome {
                    why,
                    ..Outcome::default()
                });
            }
            told.map_err(|error| failed(&error))?
        }
    };
    let (met, _) = scene.proxy.heal().await;
    scene.proxy.undo().await;
    drain(case.call, &scene.other, &mut why).await?;
    let mut all = record_case(&scene.world.events(), case.call, 1);
    all.extend(calls);
    why.extend(judge(&all).iter().map(ToString::to_string));
    // A request of a call without an answer may still be on its way.
    let is_quiet = all.iter().all(|call| call.ended.is_some());
    match why.is_empty() && is_quiet && !case.call.is_first() {
        true => server.give_back(database),
        false => server.drop_database(&database).await,
    }
    Ok(Outcome {
        is_met: !met.is_empty(),
        why,
        slow: Vec::new(),
    })
}

struct Scene<'a> {
    case: &'a Case,
    proxy: Proxy,
    world: Arc<World>,
    other: Party,
    adversary: Party,
}

impl Scene<'_> {
    /// Fills the queue. From now on, requests meet the fault.
    async fn begin(&self) -> Result<Vec<Leased>> {
        let leased = self.case.call.prepare(&self.other).await?;
        self.proxy.arm(self.case.at, &self.case.faults);
        Ok(leased)
    }

    /// Returns the calls of a child.
    async fn child(&self, fate: Fate, why: &mut Vec<String>) -> io::Result<Vec<RecordedCall>> {
        let timeout = match (fate, &self.case.faults[..]) {
            // The call goes on after it.
            (Fate::Suspended, [Fault::PauseAfter]) => TIMEOUT,
            (Fate::Suspended, _) => SHORT,
            _ => TIMEOUT,
        };
        let mut child = Child::start(&Task {
            case: self.case.to_string(),
            address: self.proxy.address().to_owned(),
            database: self.world.database.clone(),
            timeout,
        })
        .await?;
        let leased = self.begin().await.map_err(io::Error::other)?;
        child.order(&Order::Call(leased, self.world.now()))?;
        let is_met = tokio::select! {
            is_met = self.proxy.fault() => is_met,
            ended = child.hear_the_end() => ended.map(|()| false)?,
        };
        match fate {
            Fate::Killed if is_met => {
                child.kill().await;
                self.go_on().await;
            }
            Fate::Suspended if is_met => {
                child.suspend();
                self.move_adversary().await;
                if timeout == SHORT {
                    pause(SHORT + SHORT / 5).await;
                }
                child.order(&Order::Clock(self.world.now()))?;
                child.resume();
                let knows = |news: &News| matches!(news, News::Later | News::Ended(_));
                child.hear_until(knows).await?;
                self.proxy.go_on();
            }
            _ => {}
        }
        if fate == Fate::Suspended || !is_met {
            child.hear_the_end().await?;
            if child.ended == Some(Err(false)) {
                why.push("X1: the error is not retryable".to_owned());
            }
        }
        let calls = std::mem::take(&mut child.calls).into_iter();
        // A transaction is one call of several operations.
        let is_store = |call: &RecordedCall| matches!(call.operation, Operation::Store { .. });
        let last = calls.map(|call| ((call.number, is_store(&call), call.part), call));
        Ok(last.collect::<BTreeMap<_, _>>().into_values().collect())
    }

    /// The adversary moves, and the request goes on.
    async fn go_on(&self) {
        self.move_adversary().await;
        self.proxy.go_on();
    }

    async fn move_adversary(&self) {
        let case = self.case;
        // Errors are as good as answers.
        let _ = case.adversary.make(case.call, &self.adversary).await;
    }

    async fn drop_runtime(&self, why: &mut Vec<String>) -> Result<Vec<RecordedCall>> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let (address, world) = (self.proxy.address().to_owned(), self.world.clone());
        let (call, kind) = (self.case.call, self.case.client);
        let connecting = runtime.spawn(async move {
            let database = &world.database;
            let subject = Server::subject(&address, kind, TIMEOUT, database, &world).await?;
            if !call.is_first() {
                subject.lease(1).await?;
            }
            Ok(subject)
        });
        let subject: Result<Party> = connecting.await.map_err(|error| failed(&error))?;
        let subject = subject?;
        let leased = self.begin().await?;
        let (its, deliveries) = (subject.clone(), leased.clone());
        let mut making = runtime.spawn(async move { call.make(&its, &deliveries).await.map(drop) });
        let is_met = tokio::select! {
            is_met = self.proxy.fault() => is_met,
            _ = &mut making => false,
        };
        // Calls that other runtimes make while it ends may panic in the driver.
        let ending = tokio::task::spawn_blocking(move || drop(runtime));
        ending.await.map_err(|error| failed(&error))?;
        if is_met {
            // Its end is in the log.
            let _ = making.await;
            self.go_on().await;
        }
        // Without its runtime, a call may fail, but it ends.
        if timeout(HANGS, call.make(&subject, &leased)).await.is_err() {
            why.push("a call hangs after its runtime has ended".to_owned());
        }
        Ok(Vec::new())
    }
}

fn failed(error: &(impl fmt::Display + ?Sized)) -> Error {
    Error::new(ErrorKind::Unavailable, "process", error.to_string())
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FATES.iter().find(|(it, _)| it == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}
