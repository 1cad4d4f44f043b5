//! Random programs on several tasks, on a manual clock that another task moves.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use queue_api::{
    LeaseChange, LeaseOptions, ManualClock, NewMessage, QueueBackend, QueueName, Receipt,
};
use tokio::{runtime::Runtime, task::AbortHandle};

use super::{
    event::{Action, Call, Given, Millis, What, applied, millis, moment, wall_clock},
    kept_record, verdict,
};
use crate::{
    bed::{Bed, id_of},
    drop_after::DropAfter,
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
    if let Some(faults) = store.faults() {
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
        let fault = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
        faults
            .inject(fault)
            .await
            .expect("the harness injects a fault");
        random.dawdle().await;
    }
    faults
        .heal()
        .await
        .expect("the harness takes its faults back");
}

/// What the tasks of a program share: the record, and the receipts that were given out, so that
/// one may use another's.
#[derive(Clone, Default)]
pub(super) struct Board {
    calls: Arc<Mutex<Vec<Call>>>,
    receipts: Arc<Mutex<Vec<(String, String)>>>,
}

impl Board {
    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().expect("recording does not panic"))
    }
}

/// Randomness that needs no replay: what a task did is in the record.
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new() -> Self {
        Self(fastrand::Rng::new())
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.u64(..end)
    }

    /// Lets others go first, now and then.
    async fn dawdle(&mut self) {
        for _ in 0..self.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// What time a call may have been made at, by the backend's clock.
pub(super) enum Time {
    /// The manual clock only moves forward, so it bounds the call from both sides.
    Manual(Bed),
    /// The backend's own clock, which may be off this machine's by so much.
    Real { slack: Millis },
}

impl Time {
    fn now(&self) -> Millis {
        match self {
            Self::Manual(bed) => millis(bed.now()),
            Self::Real { .. } => wall_clock(),
        }
    }

    fn slack(&self) -> Millis {
        match self {
            Self::Manual(_) => 0,
            Self::Real { slack } => *slack,
        }
    }
}

/// One task: makes calls and records them.
pub(super) struct Recorder {
    pub(super) by: String,
    /// How many calls there are for each that is dropped on its way, on average.
    pub(super) drop_one_in: u64,
    pub(super) backend: Arc<dyn QueueBackend>,
    pub(super) queue: QueueName,
    pub(super) time: Time,
    pub(super) board: Board,
    pub(super) random: Random,
}

impl Recorder {
    async fn work(mut self, calls: usize) {
        for _ in 0..calls {
            self.random.dawdle().await;
            if self.random.below(2) == 0 {
                let visibility = 1 + self.random_millis();
                self.lease(3, visibility).await;
            } else {
                self.settle_one().await;
            }
        }
    }

    fn random_millis(&mut self) -> Millis {
        [0, 5, 10, 20][self.random.below(4) as usize]
    }

    async fn send(mut self, messages: usize) {
        for n in 0..messages {
            self.random.dawdle().await;
            let delay = self.random_millis();
            self.enqueue(&format!("m{n}"), delay).await;
        }
    }

    /// Settles a receipt that somebody was given, perhaps long ago.
    async fn settle_one(&mut self) {
        let picked = {
            let receipts = self
                .board
                .receipts
                .lock()
                .expect("recording does not panic");
            let recent = receipts.len().min(6) as u64;
            let from_end = if recent == 0 {
                return;
            } else {
                self.random.below(recent) + 1
            };
            receipts[receipts.len() - from_end as usize].clone()
        };
        let delay = self.random_millis();
        let action = match self.random.below(6) {
            0 | 1 => Action::Ack,
            2 | 3 => Action::Nack(delay),
            4 => Action::Extend(delay + 1),
            _ => Action::Return,
        };
        self.settle(&picked.0, &picked.1, action).await;
    }

    /// Enqueues once, whatever comes of it: a repeat might find that the message was delivered
    /// and acked meanwhile, and store a second one of the same id, which the judge could not
    /// tell from the first.
    pub(super) async fn enqueue(&mut self, id: &str, delay: Millis) {
        let message = NewMessage::new(id.to_owned())
            .with_id(id_of(id))
            .with_delay(Duration::from_millis(delay))
            .with_max_attempts(1000);
        let (backend, queue) = (self.backend.clone(), self.queue.clone());
        let what = |answered| What::Enqueue {
            id: id.to_owned(),
            delay,
            answered,
        };
        let call = self.begin(what(false));
        let messages = std::slice::from_ref(&message);
        let answer = self.maybe_drop(backend.enqueue(&queue, messages)).await;
        let answered = matches!(answer, Some(Ok(_)));
        self.end(call, what(answered), answered);
    }

    pub(super) async fn lease(&mut self, max: usize, visibility: Millis) -> Vec<Given> {
        let options =
            LeaseOptions::new(max).with_visibility_timeout(Duration::from_millis(visibility));
        let (backend, queue) = (self.backend.clone(), self.queue.clone());
        let call = self.begin(What::Lease {
            visibility,
            answer: None,
        });
        let answer = self.maybe_drop(backend.lease(&queue, &options)).await;
        let answer = answer.and_then(Result::ok);
        let answer: Option<Vec<_>> =
            answer.map(|deliveries| deliveries.iter().map(Given::new).collect());
        let given = answer.clone().unwrap_or_default();
        let answered = answer.is_some();
        self.end(call, What::Lease { visibility, answer }, answered);
        let mut receipts = self
            .board
            .receipts
            .lock()
            .expect("recording does not panic");
        receipts.extend(
            given
                .iter()
                .map(|given| (given.receipt.clone(), given.id.clone())),
        );
        drop(receipts);
        given
    }

    pub(super) async fn settle(&mut self, receipt: &str, id: &str, action: Action) -> Option<bool> {
        let what = |answer| What::Settle {
            receipt: receipt.to_owned(),
            id: id.to_owned(),
            action,
            answer,
        };
        let (backend, queue) = (self.backend.clone(), self.queue.clone());
        let receipt = Receipt::new(receipt);
        let call = self.begin(what(None));
        let outcomes = match action.change() {
            None => self.maybe_drop(backend.ack(&queue, &[receipt])).await,
            Some(action) => {
                let change = LeaseChange { receipt, action };
                self.maybe_drop(backend.change(&queue, &[change])).await
            }
        };
        let answer = outcomes
            .and_then(Result::ok)
            .map(|outcomes| applied(outcomes[0]));
        self.end(call, what(answer), answer.is_some());
        answer
    }

    /// Runs a call to its end or, now and then, drops it on the way.
    async fn maybe_drop<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        if self.random.below(self.drop_one_in) > 0 {
            return Some(call.await);
        }
        let polls = self.random.below(6) as usize + 1;
        DropAfter::new(pin!(call), polls).await
    }

    fn begin(&mut self, what: What) -> Call {
        let clock = self.time.now();
        let call = Call {
            by: self.by.clone(),
            began: moment(),
            ended: None,
            clock_from: clock.saturating_sub(self.time.slack()),
            clock_to: Millis::MAX,
            what,
        };
        self.announce(&call);
        call
    }

    /// Records the end of a call. One that was not answered has none: it may take effect later,
    /// though nobody waits for it any more.
    fn end(&mut self, mut call: Call, what: What, answered: bool) {
        call.what = what;
        if answered {
            call.ended = Some(moment());
            call.clock_to = self.time.now() + self.time.slack();
        }
        self.announce(&call);
        self.board
            .calls
            .lock()
            .expect("recording does not panic")
            .push(call);
    }

    /// Tells the parent of a process what it must know even if this process is killed now.
    fn announce(&self, call: &Call) {
        if let Time::Real { .. } = self.time {
            super::process::announce(call);
        }
    }

    /// Lets all leases run out and acks whatever is left, so that everything has to turn up.
    async fn clean_up(&mut self) {
        for _ in 0..3 {
            if let Time::Manual(bed) = &self.time {
                bed.pass(10_000).await;
            }
            while self.ack_a_batch().await > 0 {}
        }
    }

    pub(super) async fn ack_a_batch(&mut self) -> usize {
        let most = self.backend.limits().max_batch.min(100);
        let given = self.lease(most, 5_000).await;
        for given in &given {
            while self
                .settle(&given.receipt, &given.id, Action::Ack)
                .await
                .is_none()
            {
                // A backend that fails at once must not keep the watchdog from running.
                tokio::task::yield_now().await;
            }
        }
        given.len()
    }
}
