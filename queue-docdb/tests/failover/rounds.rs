//! Faults, one after another, while the clients work.

use std::{env, time::Duration};

use mongodb_test_server::{FaultError, Member, MongoReplicaSet, ReplicaSetOptions};
use queue_api::Queue;
use queue_conformance::record::{Moment, moment};

use crate::{
    client::{self, OPERATION_TIMEOUT},
    crew::HandlerRunner,
    fault::Fault,
    table::{CLOCK_BOUND, Table},
    told::Told,
};

/// How many rounds there are; without it, each fault once.
const ROUNDS: &str = "QUEUE_FAILOVER_ROUNDS";

/// What the faults and their order are drawn with.
const SEED: &str = "QUEUE_FAILOVER_SEED";

/// How long whatever is left may take to be delivered when nobody disturbs.
const DRAIN: Duration = Duration::from_secs(60);

/// One fault, and what became of the clients.
pub(crate) struct Round {
    pub(crate) fault: Fault,
    /// Whether a secondary was killed just before, and was still coming back.
    pub(crate) is_noisy: bool,
    pub(crate) began: Moment,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// The fault cannot be made here.
    Unavailable(FaultError),
    Survived(Times),
}

/// How long things took.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// From the fault to a primary: the new one, where the fault ended a reign.
    pub(crate) election: Duration,
    /// From then until the last consumer had acked a message.
    pub(crate) back: Duration,
    /// The longest time in which no consumer acked anything.
    pub(crate) stall: Duration,
}

/// Runs the rounds that the environment asks for, prints the table, and fails if something is
/// in it that must not be.
pub(crate) async fn run() -> Result<(), String> {
    let mut random = fastrand::Rng::new();
    let rounds = number(ROUNDS)?;
    let seed = number(SEED)?.unwrap_or_else(|| random.u64(..1_000_000));
    random.seed(seed);
    let faults = match rounds {
        None => Fault::ALL.to_vec(),
        Some(rounds) => mixed(rounds, &mut random),
    };
    let options = ReplicaSetOptions::new();
    let election_timeout = options.election_timeout();
    let set = MongoReplicaSet::start(options).await.map_err(text)?;
    println!(
        "{} rounds, {SEED}={seed}; election timeout {election_timeout:?} (MongoDB's own: 10s), \
         operation timeout {OPERATION_TIMEOUT:?} (the backend's own: 10s), clock bound {CLOCK_BOUND:?}",
        faults.len()
    );
    let database = "failover";
    let crew = HandlerRunner::start(&set.uri(), database)?;
    let mut rig = Rig {
        is_mixed: rounds.is_some(),
        set,
        crew,
        random,
    };
    let mut played = Vec::new();
    for (number, fault) in (1..).zip(faults) {
        let round = rig.round(fault).await;
        let round = round.map_err(|why| format!("round {number}, {fault}: {why}"))?;
        println!("round {number}: {}", round.summary());
        played.push(round);
    }
    let Rig { set, mut crew, .. } = rig;
    crew.end_production().await?;
    let queue = client::connect(&set.uri(), database).await.map_err(text)?;
    drain(&queue).await?;
    let told: Vec<Told> = crew.end()?;
    drop(queue);
    set.take_down().await.map_err(text)?;
    let table = Table::new(&played, &told);
    println!("\n{table}");
    table.verdict().map_err(|broken| broken + &table.keep())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn number(variable: &str) -> Result<Option<u64>, String> {
    let Ok(text) = env::var(variable) else {
        return Ok(None);
    };
    let number = text.parse();
    number
        .map(Some)
        .map_err(|_| format!("{variable}={text:?} is no number"))
}

/// So many faults, in an order that has each of them as often as the others.
fn mixed(rounds: u64, random: &mut fastrand::Rng) -> Vec<Fault> {
    let mut faults = Vec::new();
    while (faults.len() as u64) < rounds {
        let mut deck = Fault::ALL;
        random.shuffle(&mut deck);
        faults.extend(deck);
    }
    faults.truncate(usize::try_from(rounds).unwrap_or(usize::MAX));
    faults
}

/// Waits until everything is acked.
#[allow(clippy::disallowed_methods)] // waits for real processes
async fn drain(queue: &Queue) -> Result<(), String> {
    let started = tokio::time::Instant::now();
    loop {
        let stats = queue.stats().await.map_err(text)?;
        if stats.ready + stats.leased + stats.delayed == 0 {
            return match stats.dead {
                0 => Ok(()),
                dead => Err(format!("{dead} messages were buried")),
            };
        }
        if started.elapsed() > DRAIN {
            return Err(format!("what is left is not delivered: {stats:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Rig {
    set: MongoReplicaSet,
    crew: HandlerRunner,
    random: fastrand::Rng,
    /// Whether rounds differ from each other in more than their faults.
    is_mixed: bool,
}

impl Rig {
    async fn round(&mut self, fault: Fault) -> Result<Round, String> {
        let began = moment();
        self.crew.get_on(began).await?;
        let primary = self.set.settled().await.map_err(text)?;
        let secondary = self.secondary(primary);
        let is_noisy = self.is_mixed && fault != Fault::KillSecondary && self.random.bool();
        if is_noisy {
            let other = self.secondary(primary);
            self.set.kill(other).await.map_err(text)?;
            self.crew.make_calls(200).await?;
            self.set.start_again(other).await.map_err(text)?;
        }
        // At a moment that is random in what the clients do, not in time.
        self.crew.make_calls(self.random.usize(..200)).await?;
        let struck = moment();
        let outcome = match fault.strike(&self.set, primary, secondary).await {
            Err(why @ FaultError::NeedsContainers) => Outcome::Unavailable(why),
            Err(why) => return Err(why.to_string()),
            Ok(()) => {
                let survived = self.survive(fault, primary, secondary, struck);
                Outcome::Survived(survived.await?)
            }
        };
        Ok(Round {
            fault,
            is_noisy,
            began,
            outcome,
        })
    }

    /// Sees the clients through, takes the fault back, and sees them through that.
    async fn survive(
        &mut self,
        fault: Fault,
        primary: Member,
        secondary: Member,
        struck: Moment,
    ) -> Result<Times, String> {
        while self.set.primary().await.map_err(text)? == primary && fault.ends_a_reign() {}
        let elected = moment();
        // The old primary comes back while the clients still look for the new one, or after.
        let comes_late = !self.is_mixed || self.random.bool();
        if comes_late {
            self.crew.get_on(elected).await?;
        }
        let repaired = fault.repair(&self.set, primary, secondary).await;
        repaired.map_err(text)?;
        let repaired = moment();
        self.crew.get_on(repaired).await?;
        let back = self.crew.all_back(elected).unwrap_or(repaired);
        Ok(Times {
            election: Duration::from_nanos(elected - struck),
            back: Duration::from_nanos(back - elected),
            stall: self.crew.longest_stall(struck, moment()),
        })
    }

    fn secondary(&mut self, primary: Member) -> Member {
        let others = self.set.members().into_iter().filter(|it| *it != primary);
        let others: Vec<Member> = others.collect();
        others[self.random.usize(..others.len())]
    }
}

impl Round {
    fn summary(&self) -> String {
        let noise = if self.is_noisy {
            ", with a secondary just coming back"
        } else {
            ""
        };
        let outcome = match &self.outcome {
            Outcome::Unavailable(why) => format!("not available: {why}"),
            Outcome::Survived(times) => format!(
                "primary after {:.1} s, all consumers after {:.1} s more, longest stall {:.1} s",
                times.election.as_secs_f64(),
                times.back.as_secs_f64(),
                times.stall.as_secs_f64(),
            ),
        };
        format!("{}{noise}: {outcome}", self.fault)
    }
}
