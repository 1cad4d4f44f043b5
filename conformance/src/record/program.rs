//! Random programs on several tasks, which move their manual clock.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use queue_api::{Batching, ManualClock, QueueName};
use tokio::runtime::Runtime;

use super::{
    RECORD,
    event::Call,
    judge_and_keep, judge_record, record_from_env,
    recorder::{CallClock, Random, Recorder, SharedRecord},
    worker::IDS,
};
use crate::{
    fixture::{Fixture, name},
    harness::{Connection, Fault, Faults, Harness, Store, TestTime},
    history::{count_in_shard, passed_if_any},
    isolation::{run_all, with_store},
    report::Outcome,
    tally::{self, Counts, Goal},
};

/// Records and judges one shard of the histories.
pub(crate) fn run_shard(
    harness: &Arc<dyn Harness>,
    runtime: &Runtime,
    (shard, shards): (u32, u32),
    did: &mut Counts,
) -> Result<Outcome, String> {
    if let Some(calls) = record_from_env()? {
        if shard > 0 {
            return Ok(Outcome::NotRun(format!("{RECORD} is for the first shard")));
        }
        return judge_record(&calls).map(|()| Outcome::Passed);
    }
    let histories = count_in_shard(&**harness, shard, shards)?.div_ceil(FEWER);
    let mut goal = Goal::new(&tally::CONCURRENT, &**harness, histories);
    while goal.goes_on(did) {
        let calls = runtime.block_on(record(&**harness, did))?;
        judge_and_keep(&calls)?;
    }
    goal.check(did)?;
    Ok(passed_if_any(histories))
}

/// A concurrent history makes about three times as many calls as a random one.
const FEWER: u64 = 3;

/// The number of tasks that lease and settle.
const WORKERS: usize = 4;

/// The number of calls of each of them.
const CALLS: usize = 10;

/// One in this many histories has a server that fails.
const FAULTS_ONE_IN: u64 = 3;

/// Names that a careless pattern or a case-insensitive store would take for each other.
const QUEUES: [&str; 2] = ["like_this", "likeXthis"];

async fn record(harness: &dyn Harness, did: &mut Counts) -> Result<Vec<Call>, String> {
    let time = TestTime::Manual(Arc::new(ManualClock::new()));
    let timeout = harness.timeout();
    with_store(harness, time.clone(), timeout, async |store| {
        let fixture = Fixture::new(store.clone(), time, timeout).await?;
        let record = play(&*store, &fixture).await;
        std::mem::take(&mut record.lock().tally).add_to(did);
        Ok(record.calls())
    })
    .await
}

/// What the tasks of a history have in common.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) queues: [QueueName; 2],
    pub(super) connections: Vec<Connection>,
    pub(super) has_admin: bool,
    /// Whether the first worker purges or deletes a queue once.
    pub(super) removes: bool,
    pub(super) injector: Option<Arc<Injector>>,
}

impl Program {
    async fn new(store: &dyn Store, fixture: &Fixture, random: &mut Random) -> Self {
        let mut connections = vec![fixture.connection.clone()];
        for _ in 0..random.below(4) {
            connections.push(fixture.reconnect().await.connection.clone());
        }
        if random.one_in(4) {
            let batching = |connection: Connection| {
                connection.wrapped(|backend| Arc::new(Batching::new(backend)))
            };
            connections = connections.into_iter().map(batching).collect();
        }
        // Not always: many servers can fail for one store at a time, and the others wait.
        let faults = store.faults().filter(|_| random.one_in(FAULTS_ONE_IN));
        Self {
            queues: QUEUES.map(name),
            has_admin: fixture.has_admin(),
            removes: random.one_in(2),
            injector: faults.map(|faults| Arc::new(Injector::new(faults))),
            connections,
        }
    }
}

/// Runs a program and returns its record.
async fn play(store: &dyn Store, fixture: &Fixture) -> SharedRecord {
    let mut random = Random::new();
    let program = Program::new(store, fixture, &mut random).await;
    let record = SharedRecord::default();
    let recorder = |by: String, connection: usize| Recorder {
        by,
        drop_one_in: 10,
        has_faults: program.injector.is_some(),
        connection: program.connections[connection % program.connections.len()].clone(),
        clock: CallClock::Manual(fixture.clone()),
        record: record.clone(),
        random: Random::new(),
        made: 0,
        announce: |_| (),
    };
    // At last: how the first call on a new queue meets others.
    let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
    let first = first_sends(recorder("sender".to_owned(), 0), program.clone());
    match random.one_in(8) {
        true => tasks.push(Box::pin(first)),
        false => first.await,
    }
    for n in 0..WORKERS {
        let worker = recorder(format!("worker {n}"), n);
        let mut program = program.clone();
        program.removes &= n == 0;
        tasks.push(Box::pin(worker.work(program, CALLS)));
    }
    run_all(tasks).await;
    record.lock().tally.end_calls();
    if let Some(injector) = &program.injector {
        injector.clear(&record).await;
    }
    let mut cleaner = recorder("cleaner".to_owned(), 0);
    cleaner.drop_one_in = u64::MAX;
    cleaner.has_faults = false;
    look(&mut cleaner, &program).await;
    cleaner.work_alone(&program, CALLS).await;
    cleaner.redrive(&program.queues[0], None).await;
    cleaner.drain(&program.queues).await;
    if random.one_in(2) {
        cleaner.wake_waits(&program, fixture).await;
        cleaner.drain(&program.queues).await;
    }
    look(&mut cleaner, &program).await;
    record
}

/// Not before the workers start, in some histories.
async fn first_sends(mut sender: Recorder, program: Program) {
    let ids: Vec<_> = (0..IDS).collect();
    for part in ids.chunks(2) {
        sender.send(&program, &program.queues[0], part).await;
    }
    sender.send(&program, &program.queues[1], &ids[..2]).await;
}

/// Looks at everything while nothing else happens.
async fn look(cleaner: &mut Recorder, program: &Program) {
    for queue in &program.queues {
        cleaner.stats(queue).await;
        cleaner.peek(queue).await;
        cleaner.messages(queue).await;
        cleaner.dead_letters(queue).await;
        cleaner.list(queue).await;
    }
}

/// Makes the server fail while the others work. The outcome of a call that fails is unknown, like
/// that of a dropped one.
pub(super) struct Injector {
    faults: Arc<dyn Faults>,
    /// The fault that was injected last, and how many commands had met a fault before it.
    last: Mutex<Option<(Fault, u64)>>,
}

impl Injector {
    fn new(faults: Arc<dyn Faults>) -> Self {
        Self {
            faults,
            last: Mutex::new(None),
        }
    }

    pub(super) async fn inject_any(&self, record: &SharedRecord, random: &mut Random) {
        let fault = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
        let injected = self.faults.inject(fault).await;
        injected.expect("the harness injects a fault");
        self.count(record, Some(fault));
    }

    /// Not before the tasks end, so that the last fault can take effect.
    async fn clear(&self, record: &SharedRecord) {
        let cleared = self.faults.clear().await;
        cleared.expect("the harness clears its faults");
        self.count(record, None);
    }

    fn count(&self, record: &SharedRecord, next: Option<Fault>) {
        let met = self.faults.met();
        let mut last = self.last.lock().expect("counting does not panic");
        let tally = &mut record.lock().tally;
        if let Some((fault, before)) = *last {
            tally.add("faults that met a call", met - before);
            tally.add(format!("faults that met a call: {fault:?}"), met - before);
        }
        tally.add("faults injected", u64::from(next.is_some()));
        *last = next.map(|fault| (fault, met));
    }
}
