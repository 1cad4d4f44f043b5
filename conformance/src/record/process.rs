//! Processes that work on one store and are killed at random moments.
//!
//! A child is the test binary, started again with its name and the store's address in the
//! environment. It prints each call before it makes it and again when it has the answer. So the
//! parent knows what may have happened whenever the child is killed.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use queue_api::{NewMessage, QueueName};
use tokio::time::Instant;

use super::{
    event::{Call, ReceiptAction},
    judge_and_keep,
    recorder::{CallClock, Random, Recorder, SharedRecord},
    wrong_clock::WrongClock,
};
use crate::{
    fixture::{Fixture, id_of, name},
    harness::{Connection, Harness, TestTime},
    isolation::{isolated, with_store},
};

/// Holds the name of a child and the address of its store, with a space between them.
const CHILD: &str = "QUEUE_CONFORMANCE_CHILD";

/// The number of children at a time.
const CHILDREN: usize = 3;

/// The number of children that are killed, one after another.
const KILLS: usize = 12;

/// The most milliseconds by which the backend's clock may differ from this machine's.
const SLACK: u64 = 250;

/// If the environment says so, runs as a child until the parent kills it or ends.
pub(crate) fn child_main(harness: &dyn Harness) -> Option<ExitCode> {
    let child = env::var(CHILD).ok()?;
    let (by, address) = child.split_once(' ')?;
    // The parent holds the other end of stdin. It is closed when the parent ends, in any way.
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
        work_for_ever(recorder(by.to_owned(), connection)).await
    })
}

async fn work_for_ever(mut recorder: Recorder) -> ! {
    let (by, queue) = (recorder.by.clone(), queue());
    // Only `QueueAdmin` shows which messages are dead letters.
    let most_attempts: &[u32] = match recorder.connection.admin.is_some() {
        true => &[1, 2, 1000],
        false => &[1000],
    };
    for n in 0.. {
        let mut messages = Vec::new();
        for part in 0..=recorder.random.below(4) {
            let chosen = recorder.random.below(most_attempts.len() as u64) as usize;
            let message = NewMessage::new("").with_id(id_of(&format!("{by}-{n}-{part}")));
            messages.push(message.with_max_attempts(most_attempts[chosen]));
        }
        recorder.enqueue(&queue, &messages).await;
        let visibility = 600 + recorder.random.below(300);
        let (mut acks, mut changes) = (Vec::new(), Vec::new());
        for delivery in recorder.lease(&queue, 5, Some(visibility)).await {
            let action = match recorder.random.below(12) {
                0 => ReceiptAction::Nack(0),
                1 => ReceiptAction::Release,
                2 => ReceiptAction::Extend(900),
                3 => ReceiptAction::DeadLetter,
                4 => continue, // the lease expires
                _ => ReceiptAction::Ack,
            };
            let uses = match action {
                ReceiptAction::Ack => &mut acks,
                _ => &mut changes,
            };
            uses.push((delivery, action));
        }
        for uses in [acks, changes] {
            if !uses.is_empty() {
                recorder.settle(&queue, &uses).await;
            }
        }
        if recorder.random.one_in(20) {
            recorder.redrive(&queue, None).await;
        }
    }
    unreachable!("the numbers do not end")
}

/// In a child, prints a call for the parent.
fn announce(call: &Call) {
    if env::var_os(CHILD).is_some() {
        let line = serde_json::to_string(call).expect("a call is plain data");
        println!("{line}");
    }
}

fn recorder(by: String, connection: Connection) -> Recorder {
    Recorder {
        by,
        drop_one_in: u64::MAX,
        has_faults: false,
        connection,
        clock: CallClock::Real { slack: SLACK },
        record: SharedRecord::default(),
        random: Random::new(),
        made: 0,
        announce,
    }
}

fn queue() -> QueueName {
    name("killed")
}

/// The wall clocks of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// The machine's.
    Correct,
    /// One ten minutes fast, one ten minutes slow, one that jumps between the two.
    Wrong,
}

/// Kills processes that work on one store. Nothing may be lost.
pub(crate) async fn kill_processes(harness: &dyn Harness, clocks: Clocks) -> Result<(), String> {
    let timeout = harness.timeout();
    with_store(harness, TestTime::Real, timeout * TIMEOUTS, async |store| {
        // First of all: if the harness cannot connect, say that.
        let fixture = Fixture::new(store.clone(), TestTime::Real, timeout).await?;
        let address = store.address();
        let kill = move || kill_one_after_another(&address, clocks, timeout);
        let killed = tokio::task::spawn_blocking(kill).await;
        let seen = killed.map_err(|panic| panic.to_string())??;
        let judged = drain_and_judge(timeout, fixture.connection.clone(), seen);
        isolated(timeout * 2, judged).await.flatten()
    })
    .await
}

/// One timeout for each kill, and some for the start and the end.
const TIMEOUTS: u32 = KILLS as u32 + 4;

/// The calls of the children, by caller, number and part.
type Seen = Arc<Mutex<BTreeMap<(String, u64, usize), Call>>>;

fn kill_one_after_another(
    address: &str,
    clocks: Clocks,
    timeout: Duration,
) -> Result<Vec<Call>, String> {
    let wrong_clock = match clocks {
        Clocks::Correct => None,
        Clocks::Wrong => Some(WrongClock::build()?),
    };
    let seen = Seen::default();
    let mut random = Random::new();
    let mut children = Vec::new();
    let mut readers = Vec::new();
    for n in 0..CHILDREN + KILLS {
        if n >= CHILDREN {
            // After a random number of calls: random in what the children do, not in time.
            wait_for_more(&seen, 10 + random.below(60) as usize, timeout)?;
            let chosen = random.below(CHILDREN as u64) as usize;
            kill(children.remove(chosen));
        }
        let mut command = child_command(&format!("child{n}"), address)?;
        if let Some(wrong_clock) = &wrong_clock {
            wrong_clock.apply_to(&mut command, n);
        }
        let spawned = command.spawn();
        let mut child = spawned.map_err(|error| format!("a child does not start: {error}"))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let seen = seen.clone();
        readers.push(thread::spawn(move || read(stdout, &seen)));
        children.push(child);
    }
    wait_for_more(&seen, 50, timeout)?;
    children.into_iter().for_each(kill);
    for reader in readers {
        reader
            .join()
            .map_err(|_| "the output of a child cannot be read")?;
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

/// SIGKILL, which a process cannot catch.
fn kill(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn read(stdout: ChildStdout, seen: &Seen) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        // The last line of a child may be cut off. Its call was printed before, when it began.
        if let Ok(call) = serde_json::from_str::<Call>(&line) {
            let key = (call.by.clone(), call.number, call.part);
            seen.lock().expect("no reader panicked").insert(key, call);
        }
    }
}

/// Waits until the children have made this many more calls.
#[allow(clippy::disallowed_methods)] // waits for real processes, on a thread of its own
fn wait_for_more(seen: &Seen, calls: usize, timeout: Duration) -> Result<(), String> {
    let count = || seen.lock().expect("no reader panicked").len();
    let (enough, started) = (count() + calls, Instant::now());
    while count() < enough {
        if started.elapsed() > timeout {
            return Err(format!("the children made no {calls} calls in {timeout:?}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Acks all that is left, redrives the dead letters and acks them too, and judges the complete record.
async fn drain_and_judge(
    timeout: Duration,
    connection: Connection,
    mut seen: Vec<Call>,
) -> Result<(), String> {
    let mut cleaner = recorder("cleaner".to_owned(), connection);
    let (backend, queue) = (cleaner.connection.backend.clone(), queue());
    let started = Instant::now();
    let mut are_dead_left = true;
    loop {
        if cleaner.ack_a_batch(&queue).await > 0 {
            continue;
        }
        let stats = backend.stats(&queue).await;
        let stats = stats.map_err(|error| error.to_string())?;
        if stats.ready + stats.leased + stats.delayed == 0 {
            if !std::mem::take(&mut are_dead_left) {
                break;
            }
            cleaner.dead_letters(&queue).await;
            cleaner.redrive(&queue, None).await;
            continue;
        }
        if started.elapsed() > timeout {
            return Err(format!("E1: these messages are not delivered: {stats:?}"));
        }
        let waited = backend.wait(&queue, Duration::from_secs(1)).await;
        waited.map_err(|error| error.to_string())?;
    }
    seen.extend(cleaner.record.calls());
    judge_and_keep(&seen)
}
