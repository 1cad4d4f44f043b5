//! Processes that work on one store and are killed at random moments.
//!
//! The children are the test binary itself, started again with what it needs to know in its
//! environment. Each tells its parent of every call before it makes it and when it has the
//! answer, so that whatever moment it is killed at, the parent knows what may have happened.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use queue_api::QueueName;
use tokio::time::Instant;

use super::{
    event::{Action, Call},
    recorder::{Board, Random, Recorder, Time},
    verdict,
    wrong_clock::WrongClock,
};
use crate::{
    fixture::{Fixture, name},
    harness::{Connection, Harness, TestTime},
    isolation::{guarded, on_a_store},
};

/// Tells a child the address of the store, behind its own name and a space.
const CHILD: &str = "QUEUE_CONFORMANCE_CHILD";

/// How many children work at a time.
const CHILDREN: usize = 3;

/// How many of them are killed, one after another.
const KILLS: usize = 12;

/// How far the backend's clock may be off this machine's.
const SLACK: u64 = 250;

/// Runs as a child, if the environment says so, until the parent kills it or goes away.
pub(crate) fn child_main(harness: &dyn Harness) -> Option<ExitCode> {
    let told = env::var(CHILD).ok()?;
    let (by, address) = told.split_once(' ')?;
    // The parent holds the other end; when it goes away, however it does, so does the child.
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("the system gives a thread to a runtime");
    runtime.block_on(async {
        let connection = harness.attach(address).await.expect("the harness attaches");
        work_for_ever(recorder(by.to_owned(), &connection)).await
    })
}

async fn work_for_ever(mut recorder: Recorder) -> ! {
    let by = recorder.by.clone();
    for n in 0.. {
        recorder.enqueue(&format!("{by}-{n}"), 0).await;
        let visibility = 600 + recorder.random.below(300);
        for given in recorder.lease(2, visibility).await {
            let action = match recorder.random.below(12) {
                0 => Action::Nack(0),
                1 => Action::Release,
                2 => Action::Extend(900),
                3 => Action::DeadLetter,
                4 => continue, // nobody says anything, and the lease runs out
                _ => Action::Ack,
            };
            recorder.settle(&[given.held()], action).await;
        }
    }
    unreachable!("the numbers do not run out")
}

/// Prints a call for the parent to read. A line is written as a whole, and before the call.
pub(super) fn announce(call: &Call) {
    if env::var_os(CHILD).is_some() {
        println!(
            "{}",
            serde_json::to_string(call).expect("a call is plain data")
        );
    }
}

fn recorder(by: String, connection: &Connection) -> Recorder {
    Recorder {
        by,
        drop_one_in: u64::MAX,
        backend: connection.backend.clone(),
        queue: queue(),
        time: Time::Real { slack: SLACK },
        board: Board::default(),
        random: Random::new(),
        made: 0,
    }
}

fn queue() -> QueueName {
    name("killed")
}

/// What clocks the processes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// The machine's.
    Right,
    /// One ten minutes fast, one ten minutes slow, one that jumps between the two.
    Wrong,
}

/// Kills processes that work on one store, and judges whether its books balance afterwards.
pub(crate) async fn kills(harness: &dyn Harness, clocks: Clocks) -> Result<(), String> {
    let patience = harness.patience();
    on_a_store(
        harness,
        TestTime::Real,
        patience * PATIENCES,
        async |store| {
            // First of all: without it, nothing that the processes do could be judged.
            let fixture = Fixture::new(store.clone(), TestTime::Real, patience).await?;
            let address = store.address();
            let kill = move || kill_one_after_another(&address, clocks, patience);
            let killed = tokio::task::spawn_blocking(kill).await;
            let seen = killed.map_err(|panic| panic.to_string())??;
            let settled = settle_up(harness, &fixture.connection, seen);
            guarded(patience * 2, settled)
                .await
                .and_then(|judged| judged)
        },
    )
    .await
}

/// How often the patience may be tried: once for each kill, and at the beginning and the end.
const PATIENCES: u32 = KILLS as u32 + 4;

/// What the children said of each call: by whom it was and its number tell them apart.
type Seen = Arc<Mutex<BTreeMap<(String, u64, usize), Call>>>;

fn kill_one_after_another(
    address: &str,
    clocks: Clocks,
    patience: Duration,
) -> Result<Vec<Call>, String> {
    let wrong_clock = match clocks {
        Clocks::Right => None,
        Clocks::Wrong => Some(WrongClock::build()?),
    };
    let seen = Seen::default();
    let mut random = Random::new();
    let mut children = Vec::new();
    let mut readers = Vec::new();
    for n in 0..CHILDREN + KILLS {
        if n >= CHILDREN {
            // At a moment that is random in what the children do, not in time.
            wait_for_more(&seen, 10 + random.below(60) as usize, patience)?;
            let chosen = random.below(CHILDREN as u64) as usize;
            end(children.remove(chosen));
        }
        let mut command = child_command(&format!("child{n}"), address)?;
        if let Some(wrong_clock) = &wrong_clock {
            wrong_clock.give_to(&mut command, n);
        }
        let spawned = command.spawn();
        let mut child = spawned.map_err(|error| format!("a child cannot be started: {error}"))?;
        let told = child.stdout.take().expect("it is piped");
        let seen = seen.clone();
        readers.push(thread::spawn(move || read(told, &seen)));
        children.push(child);
    }
    wait_for_more(&seen, 50, patience)?;
    children.into_iter().for_each(end);
    for reader in readers {
        reader
            .join()
            .map_err(|_| "a child said something that is no call")?;
    }
    let seen = std::mem::take(&mut *seen.lock().expect("no reader panicked"));
    Ok(seen.into_values().collect())
}

fn child_command(by: &str, address: &str) -> Result<Command, String> {
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(this);
    command
        .env(CHILD, format!("{by} {address}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    Ok(command)
}

/// SIGKILL: the child has no say in it.
fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn read(told: ChildStdout, seen: &Seen) {
    for line in BufReader::new(told).lines().map_while(Result::ok) {
        // The last line of a child may be cut off; the call before it was announced whole.
        if let Ok(call) = serde_json::from_str::<Call>(&line) {
            let key = (call.by.clone(), call.number, call.part);
            seen.lock().expect("no reader panicked").insert(key, call);
        }
    }
}

/// Waits until the children have made so many more calls.
#[allow(clippy::disallowed_methods)] // waits for real processes, on a thread of its own
fn wait_for_more(seen: &Seen, calls: usize, patience: Duration) -> Result<(), String> {
    let count = || seen.lock().expect("no reader panicked").len();
    let (enough, started) = (count() + calls, Instant::now());
    while count() < enough {
        if started.elapsed() > patience {
            return Err("the children make no calls any more".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Acks whatever is left, adds that to what was seen, and judges the whole.
async fn settle_up(
    harness: &dyn Harness,
    connection: &Connection,
    mut seen: Vec<Call>,
) -> Result<(), String> {
    let mut cleaner = recorder("cleaner".to_owned(), connection);
    let backend = cleaner.backend.clone();
    let started = Instant::now();
    loop {
        if cleaner.ack_a_batch().await > 0 {
            continue;
        }
        let stats = backend
            .stats(&cleaner.queue)
            .await
            .map_err(|error| error.to_string())?;
        if stats.ready + stats.leased + stats.delayed == 0 {
            break;
        }
        if started.elapsed() > harness.patience() {
            return Err(format!("E1: what is left does not come: {stats:?}"));
        }
        let waited = backend.wait(&cleaner.queue, Duration::from_secs(1)).await;
        waited.map_err(|error| error.to_string())?;
    }
    seen.extend(cleaner.board.calls());
    verdict(&seen)
}
