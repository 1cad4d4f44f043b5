//! One test of an application, run on memory and on MongoDB.
//!
//! ```text
//! cargo test --example swap_backend    # both
//! cargo run --example swap_backend     # in memory
//! ```

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use queue_api::{
    ManualClock, PageOptions, Queue, QueueAdmin,
    consumer::{Context, Failure, ListenOptions, Retry, RetryPolicy, Worker},
};
use queue_memory::MemoryBackend;
use serde::{Deserialize, Serialize};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let clock = Arc::new(ManualClock::new());
    let backend = MemoryBackend::new().with_clock(clock.clone());
    reminders_are_sent_a_day_later(backend, clock).await
}

#[cfg(test)]
mod tests {
    use mongodb_test_server::MongoServer;
    use queue_docdb::DocDbBackend;

    use super::*;

    #[test]
    fn in_memory() -> anyhow::Result<()> {
        main()
    }

    #[tokio::test]
    async fn on_mongodb() -> anyhow::Result<()> {
        let server = MongoServer::start().await?;
        let database = server.scratch_database();
        let clock = Arc::new(ManualClock::new());
        let builder = DocDbBackend::builder(server.uri()).database(database.name());
        let backend = builder.clock(clock.clone()).connect().await?;
        let tested = reminders_are_sent_a_day_later(backend, clock).await;
        drop(database);
        server.stop().await?;
        tested
    }
}

// The application.

#[derive(Serialize, Deserialize)]
struct Reminder {
    to: String,
}

async fn remind(reminder: Reminder, context: Context) -> Result<(), Failure> {
    match reminder.to.as_str() {
        "" => Err(Failure::give_up("no recipient")),
        // The mail server is busy at first.
        _ if context.attempt() == 1 => Err(Failure::retry("busy")),
        to => {
            println!("sent to {to}");
            Ok(())
        }
    }
}

// The test. It does not know which backend it runs on.

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn reminders_are_sent_a_day_later(
    backend: impl QueueAdmin + Clone,
    clock: Arc<ManualClock>,
) -> anyhow::Result<()> {
    let queue = Queue::new(Arc::new(backend.clone()), "reminders")?;
    let reminders = queue.typed();
    for to in ["ada", "", "grace"] {
        let reminder = reminders.message(&Reminder { to: to.into() })?;
        queue.enqueue(&reminder.with_delay(DAY)).await?;
    }
    let options = ListenOptions::new(4).with_clock(clock.clone());
    let worker = Worker::new(queue.clone(), remind)
        .with_listen_options(options)
        .with_retry_policy(RetryPolicy::custom(|_| Retry::After(MINUTE)));

    // Nothing is ready yet.
    let report = worker.run_until_idle().await?;
    ensure!(report == Default::default(), "{report}");
    let stored = backend.peek(queue.name(), 10).await?;
    ensure!(stored.len() == 3 && queue.stats().await?.delayed == 3);

    // A day later, two fail and will be retried. The one without a recipient is a dead letter.
    clock.advance(DAY);
    let report = worker.run_until_idle().await?;
    println!("a day later:    {report}");
    ensure!((report.failed, report.dead_lettered) == (2, 1), "{report}");
    let page = PageOptions::new(10);
    let dead = backend.dead_letters(queue.name(), &page).await?;
    ensure!(dead[0].reason.to_string() == "no recipient");

    // Another minute later, the retries succeed.
    clock.advance(MINUTE);
    let report = worker.run_until_idle().await?;
    println!("a minute later: {report}");
    ensure!(report.handled == 2, "{report}");
    let stats = queue.stats().await?;
    ensure!(stats.ready + stats.delayed + stats.leased == 0, "{stats:?}");
    println!("passed");
    Ok(())
}
