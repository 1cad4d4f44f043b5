//! The rows of `queue-docdb`, on a MongoDB that is found as in the tests.

mod baselines;
mod batches;
mod enqueue;
mod examined;
mod latency;
mod place;
mod processes;
mod single;
mod stock;
mod waiting;
mod waking;
mod worker;

use std::time::Duration;

use anyhow::Context as _;
use mongodb::{
    Client,
    bson::{Document, doc},
};
use mongodb_test_server::{MongoServer, ScratchDatabase, Source};

pub(crate) use place::Place;
pub(crate) use processes::compete;
pub(crate) use waking::listen;

use crate::{findings::Findings, progress::Progress, samples::Samples, window::Pace};

pub(crate) const SECTIONS: [&str; 8] = [
    "batches",
    "processes",
    "single",
    "enqueue",
    "worker",
    "latency",
    "examined",
    "waiting",
];

/// How much of everything.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    rounds: usize,
    pace: Pace,
    /// How many messages are ready while throughput is measured.
    backlog: u64,
    /// How many processes compete, with batches of 500 and of 100; the first is one.
    processes: [Vec<usize>; 2],
    /// How many are ready where leases are compared with those of larger backlogs.
    small: u64,
    larger: Vec<u64>,
    leases_a_round: usize,
    wakes: usize,
    /// As long as it takes to find out without news is up to two seconds each time.
    wakes_by_looking: usize,
    idle: Duration,
}

impl Scale {
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 3,
            pace: Pace {
                warm_up: Duration::from_millis(300),
                counted: Duration::from_millis(700),
            },
            backlog: 100_000,
            processes: [vec![1, 4], vec![1, 4, 16]],
            small: 10_000,
            larger: vec![50_000, 150_000],
            leases_a_round: 20,
            wakes: 80,
            wakes_by_looking: 8,
            idle: Duration::from_secs(8),
        }
    }

    pub(crate) fn full() -> Self {
        Self {
            rounds: 5,
            pace: Pace {
                warm_up: Duration::from_millis(500),
                counted: Duration::from_secs(2),
            },
            backlog: 400_000,
            processes: [vec![1, 2, 4, 8, 16], vec![1, 4, 16]],
            small: 10_000,
            larger: vec![100_000, 1_000_000],
            leases_a_round: 40,
            wakes: 500,
            wakes_by_looking: 30,
            idle: Duration::from_secs(60),
        }
    }
}

/// What all sections need.
struct Bench<'a> {
    server: &'a MongoServer,
    scale: &'a Scale,
    progress: &'a mut Progress,
    findings: Findings,
}

impl Bench<'_> {
    /// A fresh database, and where in it the queues are.
    fn place(&self) -> (ScratchDatabase, Place) {
        let database = self.server.scratch_database();
        let place = Place::new(self.server.uri(), database.name());
        (database, place)
    }
}

/// Measures these sections, and says on what.
pub(crate) async fn measure(
    sections: &[&'static str],
    scale: &Scale,
    progress: &mut Progress,
) -> anyhow::Result<(Findings, String)> {
    let server = MongoServer::start().await?;
    let measured = measure_on(&server, sections, scale, progress).await;
    server.stop().await?;
    measured
}

async fn measure_on(
    server: &MongoServer,
    sections: &[&'static str],
    scale: &Scale,
    progress: &mut Progress,
) -> anyhow::Result<(Findings, String)> {
    let store = prepare(server).await?;
    let mut bench = Bench {
        server,
        scale,
        progress,
        findings: Findings::default(),
    };
    for section in sections {
        bench.progress.section(section);
        let (database, place) = bench.place();
        let measuring = measure_section(section, &mut bench, &place);
        measuring
            .await
            .with_context(|| format!("in the section {section}"))?;
        drop(database);
    }
    Ok((bench.findings, store))
}

async fn measure_section(
    section: &str,
    bench: &mut Bench<'_>,
    place: &Place,
) -> anyhow::Result<()> {
    match section {
        "batches" => batches::measure(bench, place).await,
        "processes" => processes::measure(bench, place).await,
        "single" => single::measure(bench, place).await,
        "enqueue" => enqueue::measure(bench, place).await,
        "worker" => worker::measure(bench, place).await,
        "latency" => latency::measure(bench, place).await,
        "examined" => examined::measure(bench, place).await,
        "waiting" => waiting::measure(bench, place).await,
        other => anyhow::bail!("{other} is none of the sections of docdb"),
    }
}

/// Gives a server of our own the memory that a small production server has: those of tests get by
/// with half a gigabyte, which a million messages and their indexes do not fit in, and then the
/// cache is measured and not the queue.
async fn prepare(server: &MongoServer) -> anyhow::Result<String> {
    let admin = Client::with_uri_str(server.admin_uri())
        .await?
        .database("admin");
    if *server.source() != Source::External {
        let cache = doc! { "setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=2G" };
        admin.run_command(cache).await?;
    }
    let how = match server.source() {
        Source::External => "as it was found",
        Source::Container { .. } => "in a container, with a cache of 2 GB and its data in memory",
        _ => "a process beside this one, with a cache of 2 GB",
    };
    let about: Document = admin.run_command(doc! { "buildInfo": 1 }).await?;
    let version = about.get_str("version")?;
    Ok(format!("MongoDB {version} {how}"))
}

/// Two kinds of figures, taken in turns so that noise hits both alike.
#[derive(Default)]
struct Pair {
    measured: Samples,
    baseline: Samples,
}
