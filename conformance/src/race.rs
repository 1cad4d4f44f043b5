//! Two calls that race by construction, on two connections to the same store.
//!
//! A call that waits for its store is stopped at each of its await points while the other call runs.
//! A call that never waits cannot be stopped, so two threads make both calls at once, many times.

use std::{
    future::{Future, poll_fn},
    hint,
    pin::{Pin, pin},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use crate::{
    fixture::Fixture,
    panic_location::{Panic, caught},
    poll_at_most::poll_at_most,
};

/// How long a call is stopped for another. If it holds a lock, the other needs it to go on.
pub(crate) const STOPPED: Duration = Duration::from_secs(1);

/// More await points than a call to a real backend has.
const MOST_STOPS: usize = 1000;

/// The search ends after so many calls in a row that were not stopped, if no call is known to have passed a
/// point. A call that passed exactly one looks as if it had no more points.
const FEW: usize = 6;

/// The same if a call has passed a point: the store answered before the client looked. With two processors and
/// 27 busy threads, 113 of 1900 calls on MongoDB passed all of theirs. At that rate for each point, the last of
/// ten is missed with a probability of 0.46^18, less than one in a million.
const MANY: usize = 18;

/// How often two threads race. A backend that reads under one lock and writes under the next was caught
/// in one round of 260 on average, with two processors and fourteen busy threads beside. So all rounds
/// miss it with a probability of e^(-5000 / 260), which is less than one in a million. Fewer are made if
/// they would take a quarter of the check's time, as on a machine that is much too busy.
const ROUNDS: u32 = 5000;

/// One of the threads begins up to so many steps later than the other, so that each part of a call
/// meets each part of the other.
const STEPS: u32 = 40;

/// A search for the await points of a call, which is made again and again. It goes on to the next point
/// only after a call was stopped at this one: a call may pass points, and does so often on a busy machine.
pub(crate) struct Stops<'a> {
    fixture: &'a Fixture,
    calls: usize,
    /// How many calls were stopped, each one point later than the one before.
    stopped: usize,
    /// How many calls in a row were not stopped.
    not_stopped: usize,
    /// Whether a call has met fewer points than another one.
    passes_points: bool,
    /// How many points the last call has met.
    met: usize,
}

impl<'a> Stops<'a> {
    pub(crate) fn new(fixture: &'a Fixture) -> Self {
        Self {
            fixture,
            calls: 0,
            stopped: 0,
            not_stopped: 0,
            passes_points: false,
            met: 0,
        }
    }

    /// The number of the next call, from 1. `None` ends the search.
    pub(crate) fn next_call(&mut self) -> Option<usize> {
        let enough = match self.passes_points && self.fixture.has_time() {
            true => MANY,
            false => FEW,
        };
        self.calls += 1;
        (self.not_stopped < enough).then_some(self.calls)
    }

    /// Polls the call, each time it is woken, until it ends or is at the next point. Returns `None` if it
    /// has not ended. The caller drops it or goes on with it.
    pub(crate) async fn poll<F: Future>(&mut self, mut call: Pin<&mut F>) -> Option<F::Output> {
        let met = &mut self.met;
        *met = 0;
        let counted = poll_fn(|cx| {
            let polled = call.as_mut().poll(cx);
            *met += usize::from(polled.is_pending());
            polled
        });
        let output = poll_at_most(self.stopped + 1, pin!(counted)).await;
        match output {
            None => self.was_stopped(),
            Some(_) => self.was_not_stopped(),
        }
        output
    }

    fn was_stopped(&mut self) {
        (self.stopped, self.not_stopped) = (self.stopped + 1, 0);
        let stopped = self.stopped;
        assert!(
            stopped < MOST_STOPS,
            "a call has {stopped} await points and does not end"
        );
    }

    /// The last call has ended or does not go on.
    pub(crate) fn was_not_stopped(&mut self) {
        self.not_stopped += 1;
        // An earlier call was stopped at a later point.
        self.passes_points |= self.met < self.stopped;
    }
}

/// Stops each of two calls at each of its await points while the other runs. `prepare` makes what they
/// race for, from an id that is new each time. `judge` gets both outputs. Returns how often a call was
/// stopped.
pub(crate) async fn race<C, A, B>(
    fixture: &Fixture,
    prepare: impl AsyncFn(&str) -> C,
    one: impl AsyncFn(&Fixture, &C) -> A,
    other: impl AsyncFn(&Fixture, &C) -> B,
    judge: impl AsyncFn(C, A, B),
) -> usize {
    let swapped = async |prize, second, first| judge(prize, first, second).await;
    stop_first(fixture, "one", &prepare, &one, &other, &judge).await
        + stop_first(fixture, "other", &prepare, &other, &one, swapped).await
}

async fn stop_first<C, A, B>(
    fixture: &Fixture,
    ids: &str,
    prepare: impl AsyncFn(&str) -> C,
    first: impl AsyncFn(&Fixture, &C) -> A,
    second: impl AsyncFn(&Fixture, &C) -> B,
    judge: impl AsyncFn(C, A, B),
) -> usize {
    let elsewhere = fixture.reconnect().await;
    let mut stops = Stops::new(fixture);
    while let Some(call) = stops.next_call() {
        let prize = prepare(&format!("{ids}{call}")).await;
        let second = async {
            round_trips(&elsewhere).await;
            second(&elsewhere, &prize).await
        };
        let (first, second) = interleave(&mut stops, first(fixture, &prize), second).await;
        judge(prize, first, second).await;
    }
    stops.stopped
}

/// The same. If the calls have no await point, two threads make both at once, many times.
pub(crate) async fn race_on_threads<C: Sync, A: Send, B: Send>(
    fixture: &Fixture,
    prepare: impl AsyncFn(&str) -> C,
    one: impl AsyncFn(&Fixture, &C) -> A + Sync,
    other: impl AsyncFn(&Fixture, &C) -> B + Sync,
    judge: impl AsyncFn(C, A, B),
) {
    if race(fixture, &prepare, &one, &other, &judge).await > 0 {
        return;
    }
    let elsewhere = &fixture.reconnect().await;
    let (runtime, began) = (Handle::current(), Instant::now());
    for round in 0..ROUNDS {
        if began.elapsed() > fixture.timeout() / 4 {
            return;
        }
        let prize = prepare(&format!("both{round}")).await;
        let start = Start::default();
        // Even rounds delay the one call, odd rounds the other.
        let steps = round / 2 % STEPS;
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| {
                start.after(steps * (1 - round % 2));
                runtime.block_on(caught(one(fixture, &prize)))
            });
            let second = scope.spawn(|| {
                start.after(steps * (round % 2));
                runtime.block_on(caught(other(elsewhere, &prize)))
            });
            (first.join(), second.join())
        });
        judge(prize, output(first), output(second)).await;
    }
}

/// The moment when both threads run.
#[derive(Default)]
struct Start {
    running: AtomicU32,
}

impl Start {
    fn after(&self, steps: u32) {
        self.running.fetch_add(1, Ordering::SeqCst);
        let mut spins = 0;
        while self.running.load(Ordering::SeqCst) < 2 {
            hint::spin_loop();
            spins += 1;
            // The other thread may need this processor.
            if spins % 100 == 0 {
                thread::yield_now();
            }
        }
        for _ in 0..steps {
            hint::spin_loop();
        }
    }
}

fn output<T>(joined: thread::Result<Result<T, Panic>>) -> T {
    let ended = joined.expect("panics are caught");
    ended.unwrap_or_else(|panic| panic.resume())
}

/// Stops `first` at the next point of the search, runs `second`, then finishes `first`.
async fn interleave<A, B>(
    stops: &mut Stops<'_>,
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> (A, B) {
    let mut first = pin!(first);
    match stops.poll(first.as_mut()).await {
        Some(output) => (output, second.await),
        None => while_stopped(first, second).await,
    }
}

/// Runs `call` while `stopped` is not polled, and then finishes `stopped`.
pub(crate) async fn while_stopped<A, B>(
    stopped: impl Future<Output = A>,
    call: impl Future<Output = B>,
) -> (A, B) {
    let mut call = pin!(call);
    match timeout(STOPPED, call.as_mut()).await {
        Ok(output) => (stopped.await, output),
        Err(_) => tokio::join!(stopped, call),
    }
}

/// Waits for round trips, so that a store has surely handled the last request of a stopped call.
async fn round_trips(fixture: &Fixture) {
    for _ in 0..2 {
        fixture.stats().await;
    }
}
