//! Two calls that race by construction, on two connections to the same store.
//!
//! A call that waits for its store is stopped at each of its await points while the other call runs.
//! A call that never waits cannot be stopped, so two threads make both calls at once, many times.

use std::{
    future::Future,
    hint,
    pin::pin,
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

/// The search for await points ends after so many calls in a row that were not stopped. A call passes
/// an await point if the store answers before the client looks. Of 1900 acks and enqueues on MongoDB,
/// 113 passed all of theirs, with two processors and 27 busy threads beside. So the search ends too
/// early with a probability of less than one in a million.
const TRIES: usize = 6;

/// How often two threads race. A backend that reads under one lock and writes under the next was caught
/// in one round of 260 on average, with two processors and fourteen busy threads beside. So all rounds
/// miss it with a probability of e^(-5000 / 260), which is less than one in a million. Fewer are made if
/// they would take a quarter of the check's time, as on a machine that is much too busy.
const ROUNDS: u32 = 5000;

/// One of the threads begins up to so many steps later than the other, so that each part of a call
/// meets each part of the other.
const STEPS: u32 = 40;

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
    let (mut stops, mut not_stopped) = (0, 0);
    for round in 1.. {
        assert!(
            stops < MOST_STOPS,
            "a call has more than {MOST_STOPS} await points"
        );
        let prize = prepare(&format!("{ids}{round}")).await;
        let second = async {
            round_trips(&elsewhere).await;
            second(&elsewhere, &prize).await
        };
        let stopped = interleave(stops + 1, first(fixture, &prize), second).await;
        judge(prize, stopped.first, stopped.second).await;
        if stopped.was_stopped {
            (stops, not_stopped) = (stops + 1, 0);
        } else {
            not_stopped += 1;
            if not_stopped == TRIES {
                break;
            }
        }
    }
    stops
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

/// The outputs of two calls.
struct Interleaved<A, B> {
    first: A,
    second: B,
    was_stopped: bool,
}

/// Stops `first` after this many polls, runs `second`, then finishes `first`.
async fn interleave<A, B>(
    polls: usize,
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Interleaved<A, B> {
    let mut first = pin!(first);
    let stopped = poll_at_most(polls, first.as_mut()).await;
    let was_stopped = stopped.is_none();
    let (first, second) = match stopped {
        Some(output) => (output, second.await),
        None => while_stopped(first, second).await,
    };
    Interleaved {
        first,
        second,
        was_stopped,
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
