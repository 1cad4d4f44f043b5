//! Scenarios, one after another, while the clients work.

use std::{env, time::Duration};

use mongodb_test_server::{Member, MemberError, MongoReplicaSet, ReplicaSetOptions};
use queue_api::Queue;
use queue_conformance::record::{Moment, moment};

use super::{
    client::{self, OPERATION_TIMEOUT},
    clients::Clients,
    report::Report,
    round::{Outcome, Round, Times},
    scenario::Scenario,
    table::{CLOCK_BOUND, Table},
};

/// The number of rounds. Without it, each scenario runs once.
const ROUNDS: &str = "QUEUE_FAILOVER_ROUNDS";

/// The seed of the scenarios, their order and their members.
const SEED: &str = "QUEUE_FAILOVER_SEED";

/// How long the rest may take to be acked after the last round.
const DRAIN: Duration = Duration::from_secs(60);

/// Runs the rounds, prints the table, and fails if the contract is violated.
pub(crate) async fn run() -> Result<(), String> {
    let mut random = fastrand::Rng::new();
    let rounds = number(ROUNDS)?;
    let seed = number(SEED)?.unwrap_or_else(|| random.u64(..1_000_000));
    random.seed(seed);
    let scenarios = match rounds {
        None => Scenario::ALL.to_vec(),
        Some(rounds) => mixed(rounds, &mut random),
    };
    let options = ReplicaSetOptions::new();
    let election_timeout = options.election_timeout();
    let set = MongoReplicaSet::start(options).await.map_err(text)?;
    println!(
        "{} rounds, {SEED}={seed}; election timeout {election_timeout:?} (default 10s), \
         operation timeout {OPERATION_TIMEOUT:?} (default 10s), clock bound {CLOCK_BOUND:?}",
        scenarios.len()
    );
    let database = "failover";
    let clients = Clients::start(&set.uri(), database)?;
    let mut runner = ScenarioRunner {
        is_mixed: rounds.is_some(),
        set,
        clients,
        random,
    };
    let mut played = Vec::new();
    for (number, scenario) in (1..).zip(scenarios) {
        let round = runner.round(scenario).await;
        let round = round.map_err(|error| format!("round {number}, {scenario}: {error}"))?;
        println!("round {number}: {}", round.summary());
        played.push(round);
    }
    let ScenarioRunner {
        set, mut clients, ..
    } = runner;
    clients.end_producers().await?;
    let queue = client::connect(&set.uri(), database).await.map_err(text)?;
    drain(&queue).await?;
    let reports: Vec<Report> = clients.end()?;
    drop(queue);
    set.shut_down().await.map_err(text)?;
    let table = Table::new(&played, &reports);
    println!("\n{table}");
    table.check().map_err(|text| text + &table.save_record())
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
        .map_err(|_| format!("{variable} is {text:?}; it must be a number"))
}

/// Scenarios in random order, each as often as the others.
fn mixed(rounds: u64, random: &mut fastrand::Rng) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    while (scenarios.len() as u64) < rounds {
        let mut all = Scenario::ALL;
        random.shuffle(&mut all);
        scenarios.extend(all);
    }
    scenarios.truncate(usize::try_from(rounds).unwrap_or(usize::MAX));
    scenarios
}

/// Waits until every message is acked.
#[expect(clippy::disallowed_methods, reason = "waits for other processes")]
async fn drain(queue: &Queue) -> Result<(), String> {
    let started = tokio::time::Instant::now();
    loop {
        let stats = queue.stats().await.map_err(text)?;
        if stats.ready + stats.leased + stats.delayed == 0 {
            return match stats.dead {
                0 => Ok(()),
                dead => Err(format!(
                    "{dead} messages are dead letters; there must be none"
                )),
            };
        }
        if started.elapsed() > DRAIN {
            return Err(format!("messages are left after {DRAIN:?}: {stats:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs scenarios while the clients work.
struct ScenarioRunner {
    set: MongoReplicaSet,
    clients: Clients,
    random: fastrand::Rng,
    /// Whether rounds differ in more than their scenarios.
    is_mixed: bool,
}

impl ScenarioRunner {
    async fn round(&mut self, scenario: Scenario) -> Result<Round, String> {
        let began = moment();
        self.clients.await_progress(began).await?;
        let primary = self.set.settled().await.map_err(text)?;
        let secondary = self.secondary(primary);
        let is_noisy = self.is_mixed && scenario != Scenario::SecondaryKilled && self.random.bool();
        if is_noisy {
            let other = self.secondary(primary);
            self.set.kill(other).await.map_err(text)?;
            self.clients.await_calls(200).await?;
            self.set.start_again(other).await.map_err(text)?;
        }
        // A random moment, counted in calls and not in time.
        self.clients.await_calls(self.random.usize(..200)).await?;
        let failed = moment();
        let outcome = match scenario.begin(&self.set, primary, secondary).await {
            Err(error @ MemberError::NeedsContainers) => Outcome::Unavailable(error),
            Err(error) => return Err(error.to_string()),
            Ok(()) => Outcome::Measured(self.measure(scenario, primary, secondary, failed).await?),
        };
        Ok(Round {
            scenario,
            is_noisy,
            began,
            outcome,
        })
    }

    /// Waits for the clients, repairs the members, and waits for the clients again.
    async fn measure(
        &mut self,
        scenario: Scenario,
        primary: Member,
        secondary: Member,
        failed: Moment,
    ) -> Result<Times, String> {
        while self.set.primary().await.map_err(text)? == primary && scenario.replaces_primary() {}
        let elected = moment();
        // The repair comes after the clients have found the new primary, or before.
        let is_late = !self.is_mixed || self.random.bool();
        if is_late {
            self.clients.await_progress(elected).await?;
        }
        let repaired = scenario.repair(&self.set, primary, secondary).await;
        repaired.map_err(text)?;
        let repaired = moment();
        self.clients.await_progress(repaired).await?;
        let back = self.clients.all_back(elected).unwrap_or(repaired);
        Ok(Times {
            election: Duration::from_nanos(elected - failed),
            back: Duration::from_nanos(back - elected),
            stall: self.clients.longest_stall(failed, moment()),
        })
    }

    fn secondary(&mut self, primary: Member) -> Member {
        let others = self.set.members().into_iter().filter(|it| *it != primary);
        let others: Vec<Member> = others.collect();
        others[self.random.usize(..others.len())]
    }
}
