//! The whole suite as a list of items. Each item runs by itself.

use std::sync::Arc;

use queue_api::ManualClock;
use tokio::runtime::{Builder, Runtime};

use crate::{
    checks::{CHECKS, Check, CheckTime},
    contract::Line,
    fixture::Fixture,
    harness::{Capability, Harness, TestTime},
    history,
    isolation::with_store,
    record::{self, Clocks},
    report::Outcome,
    tally::Counts,
};

/// The histories are split into this many items, which run in parallel.
const SHARDS: u32 = 4;

/// What a backend passes or fails.
#[derive(Clone, Copy)]
pub(crate) enum Item {
    Check(&'static Check),
    /// One shard of the random histories, from 0.
    Histories(u32),
    /// One shard of the concurrent histories, from 0.
    Concurrent(u32),
    /// Processes on one store that are killed.
    KilledProcesses,
    /// The same with wrong clocks.
    WrongClocks,
}

/// Every item, whatever a backend offers.
pub(crate) fn items() -> impl Iterator<Item = Item> {
    let histories = (0..SHARDS).map(Item::Histories);
    let concurrent = (0..SHARDS).map(Item::Concurrent);
    let checks = CHECKS.iter().map(Item::Check);
    let processes = [Item::KilledProcesses, Item::WrongClocks];
    checks.chain(processes).chain(histories).chain(concurrent)
}

/// The same in the order in which they begin. Histories are long and often wait, so each is to have checks
/// beside it.
pub(crate) fn running_order() -> Vec<Item> {
    let is_history = |item: &Item| matches!(item, Item::Histories(_) | Item::Concurrent(_));
    let (histories, checks): (Vec<_>, Vec<_>) = items().partition(is_history);
    let between = checks.len().div_ceil(histories.len());
    let mut histories = histories.into_iter();
    let with_history = |checks: &[Item]| histories.next().into_iter().chain(checks.to_vec());
    checks.chunks(between).flat_map(with_history).collect()
}

impl Item {
    /// The name in `cargo test`, such as `L1_exclusive::an_extended_lease_stays_exclusive`.
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
            Self::Concurrent(shard) => {
                format!("histories::concurrent_histories_{}_of_{SHARDS}", shard + 1)
            }
            Self::KilledProcesses => "R1_durable::killed_processes_lose_nothing".to_owned(),
            Self::WrongClocks => {
                "L2_visible_again::clients_with_wrong_clocks_do_no_harm".to_owned()
            }
        }
    }

    /// The line of the contract that the item checks. Histories check all lines.
    pub(crate) fn line(self) -> Option<Line> {
        match self {
            Self::Check(check) => Some(check.line),
            Self::Histories(_) | Self::Concurrent(_) => None,
            Self::KilledProcesses => Some(Line::R1),
            Self::WrongClocks => Some(Line::L2),
        }
    }

    /// The capability that the item needs.
    pub(crate) fn capability(self) -> Option<Capability> {
        match self {
            Self::Check(check) => check.capability,
            Self::Histories(_) | Self::Concurrent(_) => None,
            Self::KilledProcesses => Some(Capability::Processes),
            Self::WrongClocks => Some(Capability::ServerTime),
        }
    }

    /// The capability that the item needs and `harness` does not offer.
    pub(crate) fn not_offered_by(self, harness: &dyn Harness) -> Option<Capability> {
        self.capability()
            .filter(|capability| !harness.capabilities().contains(capability))
    }

    /// Runs the item, and counts what its histories did. The error is for the author of the backend.
    pub(crate) fn run(
        self,
        harness: &Arc<dyn Harness>,
        did: &mut Counts,
    ) -> Result<Outcome, String> {
        let kill = |clocks| runtime().block_on(record::kill_processes(&**harness, clocks));
        let ran = match self {
            Self::Check(check) => run_check(&**harness, check),
            Self::Histories(shard) => {
                return history::run_shard(harness, &runtime(), (shard, SHARDS), did);
            }
            Self::Concurrent(shard) => {
                return record::run_shard(harness, &runtime(), (shard, SHARDS), did);
            }
            Self::KilledProcesses => kill(Clocks::Correct),
            Self::WrongClocks => kill(Clocks::Wrong),
        };
        ran.map(|()| Outcome::Passed)
    }
}

/// Fails if `harness` could offer `capability` after all.
pub(crate) fn check_not_offered(
    harness: &dyn Harness,
    capability: Capability,
) -> Result<(), String> {
    let offered = runtime().block_on(async {
        match capability {
            // This cannot be seen from outside.
            Capability::ServerTime => Ok(false),
            Capability::Processes => Ok(harness.attach("").await.is_ok()),
            Capability::Admin => {
                let timeout = harness.timeout();
                with_store(harness, TestTime::Real, timeout, async |store| {
                    let fixture = Fixture::new(store, TestTime::Real, timeout).await?;
                    Ok(fixture.has_admin())
                })
                .await
            }
        }
    });
    match offered? {
        false => Ok(()),
        true => Err(format!(
            "the harness supports {capability}; add it to capabilities()"
        )),
    }
}

/// A new runtime for each item, so that no task of an earlier one still runs in it.
fn runtime() -> Runtime {
    let built = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    built.expect("the system gives threads to a runtime")
}

fn run_check(harness: &dyn Harness, check: &Check) -> Result<(), String> {
    let runtime = runtime();
    let result = runtime.block_on(async {
        let time = match check.time {
            CheckTime::Manual => TestTime::Manual(Arc::new(ManualClock::new())),
            CheckTime::Real => TestTime::Real,
        };
        let timeout = harness.timeout();
        with_store(harness, time.clone(), timeout, async |store| {
            let fixture = Fixture::new(store, time, timeout).await?;
            (check.run)(fixture).await;
            Ok(())
        })
        .await
    });
    // A task that the check started may never end, so do not wait for it.
    runtime.shutdown_background();
    result
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
    fn every_item_has_its_own_name() {
        let names: HashSet<_> = items().map(Item::name).collect();
        assert_eq!(names.len(), items().count());
    }

    #[test]
    fn every_item_is_run_once() {
        let run: Vec<_> = running_order().into_iter().map(Item::name).collect();
        let names: HashSet<_> = items().map(Item::name).collect();
        assert_eq!(run.len(), names.len());
        assert_eq!(run.into_iter().collect::<HashSet<_>>(), names);
    }
}
