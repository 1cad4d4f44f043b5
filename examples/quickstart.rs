//! Counts words with a queue: one producer and three consumers, one of which crashes.
//!
//! ```text
//! cargo run --example quickstart                      # in memory
//! cargo run --example quickstart -- --backend docdb   # on MongoDB
//! ```

use std::{
    collections::BTreeMap,
    env,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use queue_api::{LeaseOutcome, MessageId, Queue, QueueBackend, TypedQueue};
use queue_memory::MemoryBackend;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
struct Arguments {
    /// Where messages are stored.
    #[arg(long, value_enum, default_value = "memory")]
    backend: Backend,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Memory,
    Docdb,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().backend {
        Backend::Memory => count_words(Arc::new(MemoryBackend::new())).await,
        Backend::Docdb => run_on_mongodb(),
    }
}

const TEXTS: [(&str, &str); 5] = [
    (
        "harbour",
        "The first ferry leaves at six and carries bread.",
    ),
    (
        "kitchen",
        "Dough rises slowly while the oven is still cold.",
    ),
    ("library", "She returned the atlas with a letter inside."),
    ("post", "A parcel waits for an address that it can read."),
    ("signal", "The red light means stop, also at night."),
];

/// The payload of a message. A typed queue stores it as JSON.
#[derive(Serialize, Deserialize)]
struct Text {
    name: String,
    text: String,
}

/// Words by the name of the text. A message may be delivered twice; its text still has one
/// entry here, so the total stays right.
type Counts = Arc<Mutex<BTreeMap<String, usize>>>;

/// The application. It does not know which backend it runs on.
pub(crate) async fn count_words(backend: Arc<dyn QueueBackend>) -> anyhow::Result<()> {
    let queue = Queue::new(backend, "word-count")?.typed::<Text>();

    // 1. Enqueue one message per text. The id is the name of the text, so running this again
    //    while the messages are stored adds no duplicates.
    for (name, text) in TEXTS {
        let message = queue
            .message(&Text {
                name: name.to_owned(),
                text: text.to_owned(),
            })?
            .with_id(MessageId::new(name)?)
            .with_visibility_timeout(Duration::from_secs(2));
        let outcome = queue.queue().enqueue(&message).await?;
        println!("enqueued {name}: {outcome:?}");
    }

    // 2. The first consumer leases a message and crashes: it never acks.
    let crashed = queue.lease().await?.context("a message is ready")??;
    println!("crash    leased {} and is gone", crashed.value.name);

    // 3. Two more consumers work until the queue is empty. After the visibility timeout of two
    //    seconds, one of them gets the message of the crashed consumer.
    let counts = Counts::default();
    let consumers =
        ["anna", "bert"].map(|name| tokio::spawn(consume(name, queue.clone(), counts.clone())));
    for consumer in consumers {
        consumer.await??;
    }

    // 4. An ack that comes too late changes nothing: the receipt belongs to an older delivery.
    let late = queue.queue().ack(&crashed.delivery.receipt).await?;
    ensure!(late == LeaseOutcome::Lost, "the late ack was {late:?}");

    let total: usize = counts.lock().expect("not poisoned").values().sum();
    let expected: usize = TEXTS.iter().map(|(_, text)| words_in(text)).sum();
    println!("\n{total} words; counted without the queue: {expected}");
    ensure!(total == expected, "the totals differ");
    Ok(())
}

/// Leases, counts and acks until the queue is empty.
async fn consume(consumer: &str, queue: TypedQueue<Text>, counts: Counts) -> anyhow::Result<()> {
    loop {
        let Some(message) = queue.lease().await? else {
            let stats = queue.queue().stats().await?;
            if stats.ready + stats.delayed + stats.leased == 0 {
                return Ok(());
            }
            // Returns when a message may be ready, or after a second.
            queue.queue().wait(Duration::from_secs(1)).await?;
            continue;
        };
        let message = message?; // fails if the payload does not decode
        let Text { name, text } = message.value;
        let words = words_in(&text);
        counts
            .lock()
            .expect("not poisoned")
            .insert(name.clone(), words);
        let outcome = queue.queue().ack(&message.delivery.receipt).await?;
        let attempt = message.delivery.attempt;
        println!("{consumer:8} counted {name}: {words} words (attempt {attempt}, ack {outcome:?})");
    }
}

fn words_in(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Runs this program again from `docdb/`, where it is built with the MongoDB driver. Without the
/// driver, the first build in memory is much shorter.
fn run_on_mongodb() -> anyhow::Result<()> {
    println!("building the program with the MongoDB driver; the first time takes minutes");
    let cargo = env::var_os("CARGO")
        .context("the variable CARGO is not set; start this example with `cargo run`")?;
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let status = Command::new(cargo)
        .args(["run", "--manifest-path", workspace])
        .args(["--example", "quickstart_docdb"])
        .status()?;
    ensure!(status.success(), "quickstart_docdb failed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn in_memory() -> anyhow::Result<()> {
        count_words(Arc::new(MemoryBackend::new())).await
    }
}
