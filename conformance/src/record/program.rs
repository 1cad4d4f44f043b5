//! Random programs on several tasks, on a manual clock that another task moves.

use std::sync::Arc;

use futures::future::BoxFuture;
use queue_api::ManualClock;
use tokio::runtime::Runtime;

use super::{
    RECORD,
    event::Call,
    judged, kept_record,
    recorder::{Board, Random, Recorder, Time},
    verdict,
};
use crate::{
    fixture::Fixture,
    harness::{Fault, Faults, Harness, Store, TestTime},
    history::{how_many, tried},
    isolation::{all_of, on_a_store},
    report::Outcome,
};

/// Records the `shard`th of `shards` equal parts of the histories, and judges each.
pub(crate) fn run_shard(
    harness: &Arc<dyn Harness>,
    runtime: &Runtime,
    shard: u32,
    shards: u32,
) -> Result<Outcome, String> {
    if let Some(calls) = kept_record()? {
        if shard > 0 {
            return Ok(Outcome::NotRun(format!("{RECORD} is for the first share")));
        }
        return judged(&calls).map(|()| Outcome::Passed);
    }
    let histories = how_many(&**harness, shard, shards)?.div_ceil(FEWER);
    for _ in 0..histories {
        let calls = runtime.block_on(record(&**harness))?;
        verdict(&calls)?;
    }
    Ok(tried(histories))
}

/// A concurrent history makes a few times as many calls as a random one, so there are fewer.
const FEWER: u64 = 3;

/// How many tasks lease and settle.
const WORKERS: usize = 4;

/// How many calls each of them makes.
const CALLS: usize = 12;

/// How many histories there are for each whose server is made to fail, on average.
const SABOTAGED_ONE_IN: u64 = 3;

/// How many messages the program is about.
const MESSAGES: usize = 5;

async fn record(harness: &dyn Harness) -> Result<Vec<Call>, String> {
    let time = TestTime::Manual(Arc::new(ManualClock::new()));
    let patience = harness.patience();
    on_a_store(harness, time.clone(), patience, async |store| {
        let fixture = Fixture::new(store.clone(), time, patience).await?;
        Ok(play(&*store, &fixture).await)
    })
    .await
}

/// Runs a program on `fixture` to its end, and gives its record.
async fn play(store: &dyn Store, fixture: &Fixture) -> Vec<Call> {
    let elsewhere = fixture.reconnect().await;
    let board = Board::default();
    let recorder = |by: String, fixture: &Fixture| Recorder {
        by,
        drop_one_in: 10,
        backend: fixture.connection.backend.clone(),
        queue: fixture.name.clone(),
        time: Time::Manual(fixture.clone()),
        board: board.clone(),
        random: Random::new(),
        made: 0,
    };
    // Not each time: a server can often fail for one store alone at a time, and the others wait.
    let faults = store
        .faults()
        .filter(|_| Random::new().below(SABOTAGED_ONE_IN) == 0);
    if let Some(faults) = &faults {
        inject_any(&**faults, &mut Random::new()).await;
    }
    let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
    for n in 0..WORKERS {
        let fixture = if n % 2 == 0 { fixture } else { &elsewhere };
        tasks.push(Box::pin(
            recorder(format!("worker {n}"), fixture).work(CALLS),
        ));
    }
    let sender = recorder("sender".to_owned(), fixture);
    tasks.push(Box::pin(sender.send(MESSAGES)));
    tasks.push(Box::pin(pass_time(fixture.clone(), Random::new())));
    if let Some(faults) = faults.clone() {
        tasks.push(Box::pin(sabotage(faults, Random::new())));
    }
    all_of(tasks).await;
    // Not sooner: the last fault is to strike too, if anybody is left to meet it.
    if let Some(faults) = faults {
        let healed = faults.heal().await;
        healed.expect("the harness takes its faults back");
    }
    let mut cleaner = recorder("cleaner".to_owned(), fixture);
    cleaner.drop_one_in = u64::MAX;
    cleaner.clean_up().await;
    board.calls()
}

async fn pass_time(fixture: Fixture, mut random: Random) {
    for _ in 0..CALLS {
        fixture.pass(random.below(8)).await;
        random.dawdle().await;
    }
}

/// Makes the server fail now and then while the others work. What a call did that failed is as
/// unknown as what a dropped one did.
async fn sabotage(faults: Arc<dyn Faults>, mut random: Random) {
    for _ in 0..CALLS / 3 {
        random.dawdle().await;
        inject_any(&*faults, &mut random).await;
    }
}

async fn inject_any(faults: &dyn Faults, random: &mut Random) {
    let fault = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
    faults
        .inject(fault)
        .await
        .expect("the harness injects a fault");
}
