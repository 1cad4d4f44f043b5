//! The whole suite as a list of items, each of which judges a backend by itself.

use std::sync::Arc;

use queue_api::ManualClock;
use tokio::runtime::{Builder, Runtime};

use crate::{
    checks::{CHECKS, Check, CheckTime},
    contract::Line,
    fixture::Fixture,
    harness::{Capability, Harness, TestTime},
    history,
    isolation::on_a_store,
    record::{self, Clocks},
    report::Outcome,
};

/// The random histories are tried in so many items, which a runner runs side by side.
const SHARDS: u32 = 4;

/// Something that a backend passes or fails.
#[derive(Clone, Copy)]
pub(crate) enum Item {
    Check(&'static Check),
    /// One share of the random histories, counted from 0.
    Histories(u32),
    /// One share of the histories that are recorded under concurrency.
    Records(u32),
    /// Processes that work on one store and are killed.
    Kills,
    /// The same with processes whose clocks are wrong.
    WrongClocks,
}

/// Every item there is, whatever a backend offers.
pub(crate) fn items() -> impl Iterator<Item = Item> {
    let histories = (0..SHARDS).map(Item::Histories);
    let records = (0..SHARDS).map(Item::Records);
    let checks = CHECKS.iter().map(Item::Check);
    let processes = [Item::Kills, Item::WrongClocks];
    checks.chain(processes).chain(histories).chain(records)
}

impl Item {
    /// The name that it has in `cargo test`, such as `L1_exclusive::an_extended_lease_…`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Check(check) => {
                format!(
                    "{}::{}",
                    check.line.to_string().replace([' ', '-'], "_"),
                    check.name
                )
            }
            Self::Histories(shard) => {
                format!("histories::random_histories_{}_of_{SHARDS}", shard + 1)
            }
            Self::Records(shard) => {
                format!("histories::concurrent_histories_{}_of_{SHARDS}", shard + 1)
            }
            Self::Kills => "R1_durable::processes_are_killed_and_the_books_balance".to_owned(),
            Self::WrongClocks => {
                "L2_visible_again::clients_with_wrong_clocks_do_no_harm".to_owned()
            }
        }
    }

    /// The line of the contract that it is about; random histories are about all of them.
    pub(crate) fn line(self) -> Option<Line> {
        match self {
            Self::Check(check) => Some(check.line),
            Self::Histories(_) | Self::Records(_) => None,
            Self::Kills => Some(Line::R1),
            Self::WrongClocks => Some(Line::L2),
        }
    }

    /// What a backend must offer for this to be about it.
    pub(crate) fn capability(self) -> Option<Capability> {
        match self {
            Self::Check(check) => check.capability,
            Self::Histories(_) | Self::Records(_) => None,
            Self::Kills => Some(Capability::Processes),
            Self::WrongClocks => Some(Capability::ServerTime),
        }
    }

    /// What `harness` would have to offer for this to be run, and does not.
    pub(crate) fn not_offered_by(self, harness: &dyn Harness) -> Option<Capability> {
        self.capability()
            .filter(|capability| !harness.capabilities().contains(capability))
    }

    /// Judges the backend; the error is what to tell its author.
    pub(crate) fn run(self, harness: &Arc<dyn Harness>) -> Result<Outcome, String> {
        let kills = |clocks| runtime().block_on(record::kills(&**harness, clocks));
        let ran = match self {
            Self::Check(check) => run_check(&**harness, check),
            Self::Histories(shard) => {
                return history::run_shard(harness, &runtime(), shard, SHARDS);
            }
            Self::Records(shard) => return record::run_shard(harness, &runtime(), shard, SHARDS),
            Self::Kills => kills(Clocks::Right),
            Self::WrongClocks => kills(Clocks::Wrong),
        };
        ran.map(|()| Outcome::Passed)
    }
}

/// Whether `harness` is honest in not making `capability`: what a backend can do is to be judged.
pub(crate) fn is_honest(harness: &dyn Harness, capability: Capability) -> Result<(), String> {
    let offered = runtime().block_on(async {
        match capability {
            // That times are those of a server cannot be seen from outside.
            Capability::ServerTime => Ok(false),
            Capability::Processes => Ok(harness.attach("").await.is_ok()),
            Capability::Admin => {
                let patience = harness.patience();
                on_a_store(harness, TestTime::Real, patience, async |store| {
                    let fixture = Fixture::new(store, TestTime::Real, patience).await?;
                    Ok(fixture.has_admin())
                })
                .await
            }
        }
    });
    match offered? {
        false => Ok(()),
        true => Err(format!(
            "the harness offers {capability} and does not offer it"
        )),
    }
}

/// Each item has a runtime of its own, so nothing that it left running meets the next.
fn runtime() -> Runtime {
    let built = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    built.expect("the system gives threads to a runtime")
}

fn run_check(harness: &dyn Harness, check: &Check) -> Result<(), String> {
    let runtime = runtime();
    let verdict = runtime.block_on(async {
        let time = match check.time {
            CheckTime::Manual => TestTime::Manual(Arc::new(ManualClock::new())),
            CheckTime::Real => TestTime::Real,
        };
        let patience = harness.patience();
        on_a_store(harness, time.clone(), patience, async |store| {
            let fixture = Fixture::new(store, time, patience).await?;
            (check.run)(fixture).await;
            Ok(())
        })
        .await
    });
    // What a check left running may never end; it is not waited for.
    runtime.shutdown_background();
    verdict
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_line_of_the_contract_has_a_check() {
        for line in Line::ALL {
            assert!(
                CHECKS.iter().any(|check| check.line == *line),
                "{line} has no check"
            );
        }
    }

    #[test]
    fn every_item_has_a_name_of_its_own() {
        let names: HashSet<_> = items().map(Item::name).collect();
        assert_eq!(names.len(), items().count());
    }
}
