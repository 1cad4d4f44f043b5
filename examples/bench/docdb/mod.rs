//! The rows of the MongoDB backend.

mod backlog;
mod baselines;
mod batches;
mod consumers;
mod entries;
mod latency;
pub(crate) mod location;
mod pgmq;
mod single;
mod waiting;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mongodb::{Client, bson::doc};
use mongodb_test_server::{MongoServer, Source};

pub(crate) use consumers::consume;
pub(crate) use waiting::listen;

use crate::report::Report;
use location::Location;

pub(crate) const SECTIONS: [&str; 8] = [
    "batches",
    "processes",
    "entries",
    "single",
    "enqueue",
    "worker",
    "latency",
    "waiting",
];

#[derive(Debug)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// How long a round counts messages.
    counted: Duration,
    /// Ready messages while throughput is measured.
    backlog: u64,
    /// Numbers of processes, with batches of 500 and of 100. The first is one.
    processes: [&'static [usize]; 2],
    /// Ready or invisible messages while latency is measured.
    backlogs: &'static [u64],
    wakes: usize,
    /// How long the commands of idle consumers are counted.
    idle: Duration,
}

pub(crate) const QUICK: Scale = Scale {
    rounds: 3,
    counted: Duration::from_millis(700),
    backlog: 250_000,
    processes: [&[1, 4], &[1, 4, 16]],
    backlogs: &[50_000, 150_000],
    wakes: 80,
    idle: Duration::from_secs(5),
};

pub(crate) const FULL: Scale = Scale {
    rounds: 5,
    counted: Duration::from_secs(2),
    backlog: 600_000,
    processes: [&[1, 2, 4, 8, 16], &[1, 4, 16]],
    backlogs: &[100_000, 1_000_000],
    wakes: 500,
    idle: Duration::from_secs(60),
};

/// Measures these sections, beside pgmq if there is a URL of a PostgreSQL. Returns a description of
/// the server.
pub(crate) async fn measure(
    sections: &[&str],
    scale: &Scale,
    postgres: Option<&str>,
    report: &mut Report,
) -> Result<String> {
    let server = MongoServer::start().await?;
    let measured = measure_on(&server, sections, scale, postgres, report).await;
    server.stop().await?;
    measured
}

async fn measure_on(
    server: &MongoServer,
    sections: &[&str],
    scale: &Scale,
    postgres: Option<&str>,
    report: &mut Report,
) -> Result<String> {
    let description = prepare(server).await?;
    for section in sections {
        report.section(section);
        let database = server.scratch_database();
        let location = Location {
            uri: server.uri().to_owned(),
            database: database.name().to_owned(),
            wake_mode: location::WakeMode::ChangeStream,
        };
        let measured = match *section {
            "batches" => batches::one_process(report, scale, &location, postgres).await,
            "processes" => batches::processes(report, scale, &location).await,
            "entries" => entries::measure(report, scale, &location).await,
            "single" => single::lease_and_ack(report, scale, &location).await,
            "enqueue" => enqueue(report, scale, &location).await,
            "worker" => single::worker(report, scale, &location).await,
            "latency" => latency::measure(report, scale, &location).await,
            "waiting" => waiting::measure(report, scale, &location).await,
            other => bail!("{other} is not a section of docdb"),
        };
        measured.with_context(|| format!("section {section}"))?;
    }
    Ok(description)
}

async fn enqueue(report: &mut Report, scale: &Scale, location: &Location) -> Result<()> {
    batches::enqueue(report, scale, location).await?;
    single::enqueue(report, scale, location).await
}

/// Raises the cache of a server that we started. The half gigabyte of the tests does not hold a
/// million messages and their indexes.
async fn prepare(server: &MongoServer) -> Result<String> {
    let client = Client::with_uri_str(server.admin_uri()).await?;
    let admin = client.database("admin");
    let about = admin.run_command(doc! { "buildInfo": 1 }).await?;
    let version = about.get_str("version")?;
    if *server.source() == Source::External {
        return Ok(format!("MongoDB {version} as it was found"));
    }
    let cache = doc! { "setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=2G" };
    admin.run_command(cache).await?;
    let location = match server.source() {
        Source::Container { .. } => "in a container, with its data in memory",
        _ => "in a process of its own",
    };
    Ok(format!("MongoDB {version} {location}, cache of 2 GB"))
}
