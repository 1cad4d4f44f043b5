//! Random programs on several tasks, on a manual clock that another task moves.

use std::sync::Arc;

use futures::future::join_all;
use queue_api::ManualClock;
use tokio::{runtime::Runtime, task::AbortHandle};

use super::{
    event::Call,
    kept_record,
    recorder::{Board, Random, Recorder, Time},
    verdict,
};
use crate::{
    bed::Bed,
    guard::guarded,
    harness::{Fault, Faults, Harness, TestTime},
    history::how_many,
};

/// Records the `shard`th of `shards` equal parts of the histories, and judges each.
pub(crate) fn run_shard(
    harness: &Arc<dyn Harness>,
    runtime: &Runtime,
    shard: u32,
    shards: u32,
) -> Result<(), String> {
    if let Some(calls) = kept_record()? {
        return if shard == 0 { verdict(&calls) } else { Ok(()) };
    }
    for _ in 0..how_many(&**harness, shard, shards)?.div_ceil(FEWER) {
        let calls = runtime.block_on(record(&**harness))?;
        verdict(&calls)?;
    }
    Ok(())
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
    let clock = Arc::new(ManualClock::new());
    let time = TestTime::Manual(clock.clone());
    let store = harness
        .store(time.clone())
        .await
        .map_err(|why| why.to_string())?;
    let bed = Bed::new(store.clone(), time, harness.patience()).await;
    let elsewhere = bed.reconnect().await;

    let board = Board::default();
    let recorder = |by: String, bed: &Bed| Recorder {
        by,
        drop_one_in: 10,
        backend: bed.connection.backend.clone(),
        queue: bed.name.clone(),
        time: Time::Manual(bed.clone()),
        board: board.clone(),
        random: Random::new(),
    };
    // Not each time: a server can often fail for one store alone at a time, and the others wait.
    let faults = store
        .faults()
        .filter(|_| Random::new().below(SABOTAGED_ONE_IN) == 0);
    if let Some(faults) = &faults {
        inject_any(&**faults, &mut Random::new()).await;
    }
    let mut workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let bed = if n % 2 == 0 { &bed } else { &elsewhere };
            tokio::spawn(recorder(format!("worker {n}"), bed).work(CALLS))
        })
        .collect();
    workers.push(tokio::spawn(
        recorder("sender".to_owned(), &bed).send(MESSAGES),
    ));
    workers.push(tokio::spawn(pass_time(bed.clone(), Random::new())));
    if let Some(faults) = faults {
        workers.push(tokio::spawn(sabotage(faults, Random::new())));
    }
    let stopped: Vec<_> = workers.iter().map(|task| task.abort_handle()).collect();
    let mut cleaner = recorder("cleaner".to_owned(), &bed);
    cleaner.drop_one_in = u64::MAX;
    let played = guarded(harness.patience(), async {
        let joined = join_all(workers).await;
        cleaner.clean_up().await;
        joined
    })
    .await;
    stopped.iter().for_each(AbortHandle::abort);
    let removed = store.remove().await;
    for task in played? {
        task.map_err(|panic| format!("a task panicked: {panic}"))?;
    }
    removed.map_err(|why| format!("the store could not be removed: {why}"))?;
    Ok(board.calls())
}

async fn pass_time(bed: Bed, mut random: Random) {
    for _ in 0..CALLS {
        bed.pass(random.below(8)).await;
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
    faults
        .heal()
        .await
        .expect("the harness takes its faults back");
}

async fn inject_any(faults: &dyn Faults, random: &mut Random) {
    let fault = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
    faults
        .inject(fault)
        .await
        .expect("the harness injects a fault");
}
