//! The client processes, as the test process sees them.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

use queue_conformance::record::{Moment, moment};
use tokio::time::Instant;

use super::{client::CLIENT, report::Report};

const PRODUCERS: usize = 2;
const CONSUMERS: usize = 3;

/// Clients that make no progress for so long have failed.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Clients {
    producers: Vec<Client>,
    consumers: Vec<Client>,
}

struct Client {
    name: String,
    process: Child,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    log: Arc<Mutex<Log>>,
}

/// What a client has reported.
#[derive(Default)]
struct Log {
    reports: BTreeMap<u64, Report>,
    /// When each call that was progress began and ended.
    progress: Vec<(Moment, Moment)>,
}

impl Clients {
    pub(crate) fn start(uri: &str, database: &str) -> Result<Self, String> {
        let start = |name| Client::start(name, uri, database);
        let producers = (0..PRODUCERS).map(|n| start(format!("producer{n}")));
        let consumers = (0..CONSUMERS).map(|n| start(format!("consumer{n}")));
        Ok(Self {
            producers: producers.collect::<Result<_, _>>()?,
            consumers: consumers.collect::<Result<_, _>>()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Client> {
        self.producers.iter().chain(&self.consumers)
    }

    /// Waits until each client has made progress with two calls that began after this moment.
    pub(crate) async fn await_progress(&self, since: Moment) -> Result<(), String> {
        let has_progress = |client: &Client| {
            let log = client.log();
            let recent = log.progress.iter().rev();
            recent.take_while(|(began, _)| *began > since).count() >= 2
        };
        await_none(|| self.all().find(|client| !has_progress(client))).await
    }

    /// Waits for so many more calls.
    pub(crate) async fn await_calls(&self, more: usize) -> Result<(), String> {
        let count = || -> usize { self.all().map(|client| client.log().reports.len()).sum() };
        let target = count() + more;
        await_none(|| self.all().next().filter(|_| count() < target)).await
    }

    /// When the last consumer had finished its first progress that began after this moment.
    pub(crate) fn all_back(&self, since: Moment) -> Option<Moment> {
        let first = |client: &Client| {
            let log = client.log();
            let later = log.progress.iter().find(|(began, _)| *began > since);
            later.map(|(_, ended)| *ended)
        };
        let firsts: Option<Vec<Moment>> = self.consumers.iter().map(first).collect();
        firsts?.into_iter().max()
    }

    /// The longest time without progress of any consumer.
    pub(crate) fn longest_stall(&self, from: Moment, to: Moment) -> Duration {
        let mut ends = vec![from, to];
        for client in &self.consumers {
            let log = client.log();
            let ended = log.progress.iter().map(|(_, ended)| *ended);
            ends.extend(ended.filter(|ended| (from..to).contains(ended)));
        }
        ends.sort_unstable();
        let longest = ends.windows(2).map(|pair| pair[1] - pair[0]).max();
        Duration::from_nanos(longest.unwrap_or(0))
    }

    /// Lets the producers finish their calls, and waits until they have ended.
    pub(crate) async fn end_producers(&mut self) -> Result<(), String> {
        for producer in &mut self.producers {
            let stdin = producer.stdin.as_mut().expect("is open until the end");
            writeln!(stdin, "enough").map_err(|error| error.to_string())?;
        }
        let runs = |client: &&Client| client.reader.as_ref().is_some_and(|it| !it.is_finished());
        await_none(|| self.producers.iter().find(runs)).await
    }

    /// Ends the consumers, and returns all reports.
    pub(crate) fn end(self) -> Result<Vec<Report>, String> {
        let mut reports = Vec::new();
        for mut client in self.producers.into_iter().chain(self.consumers) {
            drop(client.stdin.take());
            let status = client.process.wait().map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("{} ended with {status}", client.name));
            }
            if let Some(Err(_)) = client.reader.take().map(JoinHandle::join) {
                return Err(format!("{} wrote an invalid report", client.name));
            }
            reports.extend(std::mem::take(&mut client.log().reports).into_values());
        }
        Ok(reports)
    }
}

/// Waits until no client is missing.
#[expect(clippy::disallowed_methods, reason = "waits for other processes")]
async fn await_none<'a>(missing: impl Fn() -> Option<&'a Client>) -> Result<(), String> {
    let started = Instant::now();
    while let Some(client) = missing() {
        if started.elapsed() > PATIENCE {
            let name = &client.name;
            return Err(format!("{name} made no progress for {PATIENCE:?}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

impl Client {
    fn start(name: String, uri: &str, database: &str) -> Result<Self, String> {
        let this = env::current_exe().map_err(|error| error.to_string())?;
        let mut process = Command::new(this)
            .env(CLIENT, format!("{name} {database} {uri}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let stdout = process.stdout.take().expect("is piped");
        let log = Arc::<Mutex<Log>>::default();
        let reader = thread::spawn({
            let log = log.clone();
            move || read(stdout, &log)
        });
        Ok(Self {
            name,
            stdin: process.stdin.take(),
            process,
            reader: Some(reader),
            log,
        })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("nothing panics while it is locked")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It still runs if the test has failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(stdout: ChildStdout, log: &Mutex<Log>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let report: Report = serde_json::from_str(&line).expect("a report");
        let mut log = log.lock().expect("nothing panics while it is locked");
        if report.is_progress() {
            let ended = report.call.ended.unwrap_or_else(moment);
            log.progress.push((report.call.began, ended));
        }
        // The report after a call replaces the one before it.
        log.reports.insert(report.call.number, report);
    }
}
