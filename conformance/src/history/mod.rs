//! Random histories: commands over small domains, played on a manual clock. A model judges the
//! backend after every step.
//!
//! A failing history is shrunk and printed as a timeline, with the seed that replays it.

mod command;
mod manage;
mod model;
mod play;
mod player;
mod shrink;
mod waits;

use std::{cell::RefCell, env, fmt::Write, sync::Arc};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    harness::Harness,
    replay,
    report::Outcome,
    tally::{self, Counts, Goal},
};
use command::Command;

/// Holds the seed of a history to replay.
const SEED: &str = "QUEUE_CONFORMANCE_SEED";

/// Holds the number of random histories, instead of the harness.
const HISTORIES: &str = "QUEUE_CONFORMANCE_HISTORIES";

/// Runs one shard of the histories.
pub(crate) fn run_shard(
    harness: &Arc<dyn Harness>,
    runtime: &Runtime,
    (shard, shards): (u32, u32),
    did: &mut Counts,
) -> Result<Outcome, String> {
    if let Some(seed) = number_from_env(SEED)? {
        if shard > 0 {
            return Ok(Outcome::NotRun(format!("{SEED} is for the first shard")));
        }
        return run_one(harness, runtime, seed, did).map(|()| Outcome::Passed);
    }
    let histories = count_in_shard(&**harness, shard, shards)?;
    let mut goal = Goal::new(&tally::RANDOM, &**harness, histories);
    while goal.goes_on(did) {
        let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
        run_one(harness, runtime, seed, did)?;
    }
    goal.check(did)?;
    Ok(passed_if_any(histories))
}

/// The outcome of a shard without failures.
pub(crate) fn passed_if_any(histories: u64) -> Outcome {
    match histories {
        0 => Outcome::NotRun("this shard has no histories".to_owned()),
        _ => Outcome::Passed,
    }
}

/// The number of histories in a shard.
pub(crate) fn count_in_shard(
    harness: &dyn Harness,
    shard: u32,
    shards: u32,
) -> Result<u64, String> {
    let histories = number_from_env(HISTORIES)?.unwrap_or(u64::from(harness.histories()));
    Ok((histories + u64::from(shards - 1 - shard)) / u64::from(shards))
}

fn number_from_env(name: &str) -> Result<Option<u64>, String> {
    let Some(text) = env::var_os(name) else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| format!("{name} is {text:?}; it must be a number"))?;
    Ok(Some(number))
}

/// Runs the history of `seed`. If it fails, shrinks it.
fn run_one(
    harness: &Arc<dyn Harness>,
    runtime: &Runtime,
    seed: u64,
    did: &mut Counts,
) -> Result<(), String> {
    let timeout = harness.timeout();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        failure_persistence: None,
        // Each attempt needs a new store, and the whole timeout if the backend hangs.
        max_shrink_iters: 2000,
        max_shrink_time: timeout.as_millis() as u32,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let history = command::histories(harness.capabilities())
        .new_tree(&mut runner)
        .map_err(|why| why.to_string())?;
    // An error of the harness says nothing about the backend. If it comes first, it is reported and
    // not shrunk. If it comes while shrinking, it is ignored.
    let first_failure: RefCell<Option<play::Played>> = RefCell::new(None);
    let did = RefCell::new(did);
    let play = |commands: &[Command]| {
        if let Some(Err(_)) = &*first_failure.borrow() {
            return Ok(());
        }
        let did = &mut did.borrow_mut();
        let played = runtime.block_on(play::play(&**harness, commands, did));
        let why = match &played {
            Ok(Ok(())) => return Ok(()),
            Err(_) if first_failure.borrow().is_some() => return Ok(()),
            Ok(Err(failure)) => failure.to_string(),
            Err(why) => why.clone(),
        };
        first_failure.borrow_mut().get_or_insert(played);
        Err(why)
    };
    let result = runner.run_one(history, |commands| {
        play(&commands).map_err(TestCaseError::fail)
    });
    if let Some(Err(why)) = &*first_failure.borrow() {
        return Err(format!("a history cannot be played: {why}"));
    }
    match result {
        Ok(_) => Ok(()),
        Err(TestError::Abort(why)) => Err(why.to_string()),
        Err(TestError::Fail(why, commands)) => {
            let (why, until) = (why.message().to_owned(), Instant::now() + timeout / 4);
            let (commands, why) = shrink::smallest(commands, why, |fewer| {
                (Instant::now() < until).then(|| play(fewer).err())?
            });
            Err(report(seed, &why, &commands))
        }
    }
}

fn report(seed: u64, why: &str, commands: &[Command]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "a history of {} steps breaks the contract:\n\n{why}\n",
        commands.len()
    );
    let command = replay::command(SEED, seed, "random_histories_1");
    let _ = writeln!(
        text,
        "to replay it, run\n\n    {command}\n\nthe commands were"
    );
    for command in commands {
        let _ = writeln!(text, "  {command:?}");
    }
    text
}
