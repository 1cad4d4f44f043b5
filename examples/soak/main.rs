//! A soak: worker processes on a MongoDB that are killed and stopped all the time, handlers that
//! fail in every way, and books that have to balance at the end.
//!
//! ```text
//! cargo run --release --example soak                   # five minutes
//! cargo run --release --example soak -- --seconds 20
//! ```
//!
//! Eight processes work on one queue. Every ten seconds two of them are killed (SIGKILL), two are
//! stopped gracefully (SIGTERM), and four new ones are started; two are left alone, so that one
//! can see whether their memory stays flat. Each tells the parent when it begins a message and
//! how that ended, by the clock that all processes of a machine share. The parent checks that
//!
//! - every message was handled, or is a dead letter for the reason that it had to be one;
//! - no two handlers had a message at the same time;
//! - a message that a graceful stop gave back was not charged an attempt;
//! - neither the memory of the old processes nor the number of connections grows.

mod books;
mod child;
mod crew;

use std::{env, sync::Arc, time::Duration};

use anyhow::{bail, ensure};
use clap::Parser;
use mongodb::bson::{Bson, doc};
use mongodb_test_server::MongoServer;
use queue_api::{Clock, DeadLetterPage, Queue, QueueAdmin, TokioClock};
use queue_docdb::DocDbBackend;

use crate::{books::Books, crew::HandlerRunner};

/// Tells a child where its queue is.
const CHILD: &str = "QUEUE_SOAK_CHILD";

/// How many processes work at a time.
const PROCESSES: usize = 8;

/// How often some of them go.
const ROUND: Duration = Duration::from_secs(10);

/// Shorter than some handlers take, so that they need renewal.
const VISIBILITY: Duration = Duration::from_secs(2);

#[derive(Parser)]
struct Arguments {
    /// For how long messages are sent.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// How many messages are sent a second.
    #[arg(long, default_value_t = 150)]
    rate: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Ok(place) = env::var(CHILD) {
        return child::work(&place).await;
    }
    let arguments = Arguments::parse();
    let server = MongoServer::start().await?;
    let database = server.scratch_database();
    let soaked = soak(&arguments, server.uri(), database.name()).await;
    drop(database);
    server.stop().await?;
    soaked
}

async fn soak(arguments: &Arguments, uri: &str, database: &str) -> anyhow::Result<()> {
    let backend = DocDbBackend::builder(uri).database(database);
    let backend = backend.connect().await?;
    let queue = Queue::new(Arc::new(backend.clone()), "soak")?;
    let mut crew = HandlerRunner::start(format!("{database} {uri}"))?;

    println!("  time   sent handled  ready leased  MiB of the two old ones  connections");
    let clock = TokioClock::new();
    let started = clock.now();
    let (mut sent, mut rounds) = (0, 0);
    while clock.now() < started + Duration::from_secs(arguments.seconds) {
        let due = clock.now().duration_since(started)?.as_millis() as u64 * arguments.rate / 1000;
        let messages: Vec<_> = (sent..due).map(child::message).collect();
        queue.enqueue_batch(&messages).await?;
        sent = sent.max(due);
        if clock.now() >= started + ROUND * (rounds + 1) {
            rounds += 1;
            show(rounds, sent, &backend, &queue, &mut crew).await?;
            crew.relieve()?;
        }
        clock
            .sleep_until(clock.now() + Duration::from_millis(50))
            .await;
    }
    let given_up = clock.now() + Duration::from_secs(60);
    loop {
        let stats = queue.stats().await?;
        if stats.ready + stats.delayed + stats.leased == 0 {
            break;
        }
        ensure!(
            clock.now() < given_up,
            "what is left does not come: {stats:?}"
        );
        clock
            .sleep_until(clock.now() + Duration::from_millis(100))
            .await;
    }
    show(rounds + 1, sent, &backend, &queue, &mut crew).await?;
    let books = crew.end()?;
    settle(&books, &backend, &queue, sent).await
}

async fn show(
    round: u32,
    sent: u64,
    backend: &DocDbBackend,
    queue: &Queue,
    crew: &mut HandlerRunner,
) -> anyhow::Result<()> {
    let stats = queue.stats().await?;
    let memory = crew.memory()?;
    let admin = backend.client().database("admin");
    let status = admin.run_command(doc! { "serverStatus": 1 }).await?;
    let connections = status.get_document("connections")?.get("current");
    let connections = match connections {
        Some(Bson::Int32(number)) => u64::try_from(*number)?,
        Some(Bson::Int64(number)) => u64::try_from(*number)?,
        other => bail!("a MongoDB counts its connections: {other:?}"),
    };
    crew.remember(memory, connections);
    println!(
        "{:5}s {sent:6} {:7} {:6} {:6}  {:>23}  {:>11}",
        u64::from(round) * ROUND.as_secs(),
        crew.handled(),
        stats.ready,
        stats.leased,
        memory
            .map(|bytes| format!("{:.1}", bytes as f64 / 1048576.0))
            .join(" "),
        connections,
    );
    Ok(())
}

/// Compares what the processes told with what there was to do and what is left.
async fn settle(
    books: &Books,
    backend: &DocDbBackend,
    queue: &Queue,
    sent: u64,
) -> anyhow::Result<()> {
    let mut dead = Vec::new();
    let mut page = DeadLetterPage::new(1000);
    loop {
        let more = backend.dead_letters(queue.name(), &page).await?;
        let Some(last) = more.last() else { break };
        page = DeadLetterPage::new(1000).starting_after(last.id.clone());
        dead.extend(more);
    }
    let verdict = books.judge(sent, &dead);
    println!("\n{verdict}");
    ensure!(verdict.is_clean(), "the books do not balance");
    Ok(())
}
