//! Random programs on several tasks. Another task moves their manual clock.

use std::sync::Arc;

use futures::future::BoxFuture;
use queue_api::ManualClock;
use tokio::runtime::Runtime;

use super::{
    RECORD,
    event::Call,
    judge_and_keep, judge_record, record_from_env,
    recorder::{CallClock, Random, Recorder, SharedRecord},
};
use crate::{
    fixture::Fixture,
    harness::{Fault, Faults, Harness, Store, TestTime},
    history::{count_in_shard, passed_if_any},
    isolation::{run_all, with_store},
    report::Outcome,
};

/// Records and judges one shard of the histories.
pub(crate) fn run_shard(
    harness: &Arc<dyn Harness>,
    runtime: &Runtime,
    shard: u32,
    shards: u32,
) -> Result<Outcome, String> {
    if let Some(calls) = record_from_env()? {
        if shard > 0 {
            return Ok(Outcome::NotRun(format!("{RECORD} is for the first shard")));
        }
        return judge_record(&calls).map(|()| Outcome::Passed);
    }
    let histories = count_in_shard(&**harness, shard, shards)?.div_ceil(FEWER);
    for _ in 0..histories {
        let calls = runtime.block_on(record(&**harness))?;
        judge_and_keep(&calls)?;
    }
    Ok(passed_if_any(histories))
}

/// A concurrent history makes about three times as many calls as a random one.
const FEWER: u64 = 3;

/// The number of tasks that lease and settle.
const WORKERS: usize = 4;

/// The number of calls of each of them.
const CALLS: usize = 12;

/// One in this many histories has a server that fails.
const FAULTS_ONE_IN: u64 = 3;

const MESSAGES: usize = 5;

async fn record(harness: &dyn Harness) -> Result<Vec<Call>, String> {
    let time = TestTime::Manual(Arc::new(ManualClock::new()));
    let timeout = harness.timeout();
    with_store(harness, time.clone(), timeout, async |store| {
        let fixture = Fixture::new(store.clone(), time, timeout).await?;
        Ok(play(&*store, &fixture).await)
    })
    .await
}

/// Runs a program and returns its record.
async fn play(store: &dyn Store, fixture: &Fixture) -> Vec<Call> {
    let elsewhere = fixture.reconnect().await;
    let record = SharedRecord::default();
    let recorder = |by: String, fixture: &Fixture| Recorder {
        by,
        drop_one_in: 10,
        connection: fixture.connection.clone(),
        queue: fixture.name.clone(),
        clock: CallClock::Manual(fixture.clone()),
        record: record.clone(),
        random: Random::new(),
        made: 0,
        announce: |_| (),
    };
    // Not always: many servers can fail for one store at a time, and the others wait.
    let faults = store
        .faults()
        .filter(|_| Random::new().below(FAULTS_ONE_IN) == 0);
    if let Some(faults) = &faults {
        inject_any(&**faults, &mut Random::new()).await;
    }
    let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
    for n in 0..WORKERS {
        let fixture = if n % 2 == 0 { fixture } else { &elsewhere };
        let worker = recorder(format!("worker {n}"), fixture);
        tasks.push(Box::pin(worker.work(CALLS)));
    }
    let sender = recorder("sender".to_owned(), fixture);
    tasks.push(Box::pin(sender.send(MESSAGES)));
    tasks.push(Box::pin(pass_time(fixture.clone(), Random::new())));
    if let Some(faults) = faults.clone() {
        tasks.push(Box::pin(inject_some(faults, Random::new())));
    }
    run_all(tasks).await;
    // Not before the tasks end, so that the last fault can take effect.
    if let Some(faults) = faults {
        let cleared = faults.clear().await;
        cleared.expect("the harness clears its faults");
    }
    let mut cleaner = recorder("cleaner".to_owned(), fixture);
    cleaner.drop_one_in = u64::MAX;
    cleaner.drain().await;
    record.calls()
}

async fn pass_time(fixture: Fixture, mut random: Random) {
    for _ in 0..CALLS {
        fixture.pass(random.below(8)).await;
        random.yield_randomly().await;
    }
}

/// Makes the server fail while the others work. The outcome of a call that fails is unknown, like
/// that of a dropped one.
async fn inject_some(faults: Arc<dyn Faults>, mut random: Random) {
    for _ in 0..CALLS / 3 {
        random.yield_randomly().await;
        inject_any(&*faults, &mut random).await;
    }
}

async fn inject_any(faults: &dyn Faults, random: &mut Random) {
    let fault = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
    let injected = faults.inject(fault).await;
    injected.expect("the harness injects a fault");
}
