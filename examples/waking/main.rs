//! What waiting costs: commands that a consumer sends while nothing happens, and the time from an
//! enqueue to the moment at which a consumer has the message, in the same and in another process.
//!
//! ```text
//! cargo run --release --example waking
//! cargo run --release --example waking -- --idle-seconds 10 --wakes 50
//! ```
//!
//! On a MongoDB that is found as in the tests: with a change stream, and without one, as on
//! elastic clusters. A wake-up is measured from before the enqueue is sent, so it includes the
//! enqueue itself.

mod consumer;

use std::time::Duration;

use clap::Parser;
use mongodb_test_server::MongoServer;
use queue_api::{Clock, NewMessage, TokioClock};

use crate::consumer::{Apart, Here, News, nanos};

#[derive(Clone, Parser)]
struct Arguments {
    /// For how long nothing happens.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// How often a consumer is woken by a change stream, or by itself.
    #[arg(long, default_value_t = 500)]
    wakes: usize,
    /// How often one is woken that has to look, which takes up to two seconds each time.
    #[arg(long, default_value_t = 30)]
    looks: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if consumer::is_child() {
        return consumer::child().await;
    }
    let arguments = Arguments::parse();
    let server = MongoServer::start().await?;
    println!("consumer                         idle commands/s   wake-ups  p50 ms  p99 ms");
    for news in [News::Streamed, News::Polled] {
        let database = server.scratch_database();
        let place = news.place(database.name(), server.uri());
        let mut here = Here::listen(&place).await?;
        report("same process", news, here.measure(&arguments).await?);
        // Elsewhere begins with nobody here, who might be faster.
        here.stop().await;
        let mut apart = Apart::start(&place)?;
        let sender = Here::connect(&place).await?;
        report(
            "another process",
            news,
            apart.measure(&sender, &arguments, news).await?,
        );
        apart.stop()?;
        drop(database);
    }
    server.stop().await?;
    Ok(())
}

/// What was measured of one consumer.
struct Measured {
    commands_a_second: f64,
    /// In nanoseconds.
    wakes: Vec<u64>,
}

fn report(whom: &str, news: News, mut measured: Measured) {
    measured.wakes.sort_unstable();
    let percentile = |of: usize| {
        let index = (measured.wakes.len() * of / 100).min(measured.wakes.len() - 1);
        measured.wakes[index] as f64 / 1e6
    };
    println!(
        "{whom:16} {news:15} {:15.2} {:10} {:7.1} {:7.1}",
        measured.commands_a_second,
        measured.wakes.len(),
        percentile(50),
        percentile(99),
    );
}

/// A message that says when it was sent.
fn message() -> NewMessage {
    NewMessage::new(nanos().to_string())
}

async fn pause(time: Duration) {
    let clock = TokioClock::new();
    clock.sleep_until(clock.now() + time).await;
}
