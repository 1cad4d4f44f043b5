//! The clients as the rig sees them: processes that tell of each call they make.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use queue_conformance::record::{Moment, moment};
use tokio::time::Instant;

use crate::{client::CLIENT, told::Told};

const PRODUCERS: usize = 2;
const CONSUMERS: usize = 3;

/// How long the clients may get nowhere before something is wrong for good.
const PATIENCE: Duration = Duration::from_secs(120);

/// The clients at work.
pub(crate) struct HandlerRunner {
    clients: Vec<Process>,
}

struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    log: Arc<Mutex<Log>>,
}

/// What a client told.
#[derive(Default)]
struct Log {
    calls: BTreeMap<u64, Told>,
    /// When each call that was progress began and ended.
    progress: Vec<(Moment, Moment)>,
}

impl HandlerRunner {
    pub(crate) fn start(uri: &str, database: &str) -> Result<Self, String> {
        let producers = (0..PRODUCERS).map(|n| format!("producer{n}"));
        let consumers = (0..CONSUMERS).map(|n| format!("consumer{n}"));
        let clients = producers
            .chain(consumers)
            .map(|name| Process::start(name, uri, database));
        Ok(Self {
            clients: clients.collect::<Result<_, _>>()?,
        })
    }

    /// Waits until every client has got on twice with calls that began after this moment.
    pub(crate) async fn get_on(&self, since: Moment) -> Result<(), String> {
        let got_on = |client: &Process| {
            let log = client.log();
            let recent = log.progress.iter().rev();
            recent.take_while(|(began, _)| *began > since).count() >= 2
        };
        self.wait_until("gets on", |crew| {
            crew.clients.iter().find(|client| !got_on(client))
        })
        .await
    }

    /// Waits until so many more calls have been made.
    pub(crate) async fn make_calls(&self, more: usize) -> Result<(), String> {
        let count = |crew: &Self| -> usize {
            let calls = crew.clients.iter().map(|client| client.log().calls.len());
            calls.sum()
        };
        let enough = count(self) + more;
        self.wait_until("makes a call", |crew| {
            crew.clients.first().filter(|_| count(crew) < enough)
        })
        .await
    }

    /// When the first call of each client ended that was progress and began after this moment;
    /// the latest of them.
    pub(crate) fn all_back(&self, since: Moment) -> Option<Moment> {
        let first = |client: &Process| {
            let log = client.log();
            let later = log.progress.iter().find(|(began, _)| *began > since);
            later.map(|(_, ended)| *ended)
        };
        let firsts: Option<Vec<Moment>> = self.consumers().map(first).collect();
        firsts?.into_iter().max()
    }

    /// The longest time between these moments in which no consumer got on.
    pub(crate) fn longest_stall(&self, from: Moment, to: Moment) -> Duration {
        let mut ends: Vec<Moment> = vec![from, to];
        for client in self.consumers() {
            let log = client.log();
            let ended = log.progress.iter().map(|(_, ended)| *ended);
            ends.extend(ended.filter(|ended| (from..to).contains(ended)));
        }
        ends.sort_unstable();
        let longest = ends.windows(2).map(|pair| pair[1] - pair[0]).max();
        Duration::from_nanos(longest.unwrap_or(0))
    }

    fn consumers(&self) -> impl Iterator<Item = &Process> {
        self.clients
            .iter()
            .filter(|client| client.name.starts_with("consumer"))
    }

    /// Lets the producers finish what they are about, and waits for their end.
    pub(crate) async fn end_production(&mut self) -> Result<(), String> {
        let mut producers = self.clients.iter_mut().take(PRODUCERS);
        for producer in producers.by_ref() {
            let stdin = producer.stdin.as_mut().expect("is open until the end");
            writeln!(stdin, "enough").map_err(|error| error.to_string())?;
        }
        self.wait_until("finishes", |crew| {
            let mut producers = crew.clients.iter().take(PRODUCERS);
            producers.find(|producer| !producer.has_ended())
        })
        .await
    }

    /// Ends the consumers, and gives out what everybody told.
    pub(crate) fn end(mut self) -> Result<Vec<Told>, String> {
        let mut all = Vec::new();
        for client in &mut self.clients {
            drop(client.stdin.take());
            let status = client.child.wait().map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("{} ended with {status}", client.name));
            }
            if let Some(Err(_)) = client.reader.take().map(JoinHandle::join) {
                return Err(format!("what {} said was not understood", client.name));
            }
            all.extend(std::mem::take(&mut client.log().calls).into_values());
        }
        Ok(all)
    }

    /// Waits until nobody is left that something has not happened to yet.
    #[allow(clippy::disallowed_methods)] // waits for real processes
    async fn wait_until(
        &self,
        what: &str,
        missing: impl Fn(&Self) -> Option<&Process>,
    ) -> Result<(), String> {
        let started = Instant::now();
        while let Some(client) = missing(self) {
            if started.elapsed() > PATIENCE {
                return Err(format!(
                    "no client {what} for {PATIENCE:?}, {} at least",
                    client.name
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Process {
    fn start(name: String, uri: &str, database: &str) -> Result<Self, String> {
        let this = env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(this)
            .env(CLIENT, format!("{name} {database} {uri}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("a client cannot be started: {error}"))?;
        let told = child.stdout.take().expect("is piped");
        let log = Arc::<Mutex<Log>>::default();
        let reader = thread::spawn({
            let log = log.clone();
            move || read(told, &log)
        });
        Ok(Self {
            name,
            stdin: child.stdin.take(),
            child,
            reader: Some(reader),
            log,
        })
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().expect("the reader did not panic")
    }

    fn has_ended(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // When a test fails; else it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(told: ChildStdout, log: &Mutex<Log>) {
    for line in BufReader::new(told).lines().map_while(Result::ok) {
        let told: Told = serde_json::from_str(&line).expect("a client tells of a call");
        let mut log = log.lock().expect("nobody panics with it");
        if told.is_progress() {
            let ended = told.call.ended.unwrap_or_else(moment);
            log.progress.push((told.call.began, ended));
        }
        // The second line about a call takes the place of the first.
        log.calls.insert(told.call.number, told);
    }
}
