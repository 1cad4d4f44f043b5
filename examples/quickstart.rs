//! Counts the words of a folder of text files: a producer enqueues the files, three consumers
//! work on them, and one of the three crashes without a word.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --example quickstart -- --backend docdb
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use mongodb_test_server::MongoServer;
use queue_api::{LeaseOutcome, MessageId, Queue, QueueBackend, TypedQueue};
use queue_docdb::DocDbBackend;
use queue_memory::MemoryBackend;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
struct Arguments {
    /// Where the queue is kept.
    #[arg(long, value_enum, default_value = "memory")]
    backend: Backend,
    /// The folder whose text files are counted.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/texts"))]
    folder: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Memory,
    Docdb,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // The only place that knows which backend it is.
    match arguments.backend {
        Backend::Memory => count_words(Arc::new(MemoryBackend::new()), &arguments.folder).await,
        Backend::Docdb => {
            let server = MongoServer::start().await?;
            let database = server.scratch_database();
            let backend = DocDbBackend::builder(server.uri()).database(database.name());
            let counted = count_words(Arc::new(backend.connect().await?), &arguments.folder).await;
            drop(database);
            server.stop().await?;
            counted
        }
    }
}

/// What a message says. Payloads are bytes; a typed queue turns them into this and back.
#[derive(Debug, Serialize, Deserialize)]
struct CountFile {
    path: PathBuf,
}

/// What the consumers found out: the words of each file. A file that is counted twice has one
/// entry all the same, and that is what makes at-least-once delivery harmless.
type Counts = Arc<Mutex<BTreeMap<PathBuf, usize>>>;

async fn count_words(backend: Arc<dyn QueueBackend>, folder: &Path) -> anyhow::Result<()> {
    let queue = Queue::new(backend, "word-count")?.typed::<CountFile>();

    // 1. Enqueue one message a file. The id is derived from the file, so running the producer
    //    again would store nothing twice.
    let files = text_files(folder)?;
    for (number, path) in files.iter().enumerate() {
        let message = queue
            .message(&CountFile { path: path.clone() })?
            .with_id(MessageId::new(&format!("file-{number}"))?)
            .with_visibility_timeout(Duration::from_secs(2));
        let outcome = queue.queue().enqueue(&message).await?;
        println!("enqueued {} as {}: {outcome:?}", name_of(path), message.id);
    }

    // 2. One consumer leases a message and crashes. Nobody tells the queue.
    let victim = queue.lease().await?.context("a message is ready")??;
    println!(
        "crash    has leased {} and is gone",
        name_of(&victim.value.path)
    );

    // 3. Two consumers go on. They know nothing of the third.
    let counts = Counts::default();
    let consumers =
        ["anna", "bert"].map(|name| tokio::spawn(consume(name, queue.clone(), counts.clone())));
    for consumer in consumers {
        consumer.await??;
    }

    // 4. The message of the crashed consumer came back, so the sum is right. A receipt that a
    //    later delivery has superseded is worth nothing any more.
    let late = queue.queue().ack(&victim.delivery.receipt).await?;
    ensure!(
        late == LeaseOutcome::Lost,
        "the crashed consumer's lease is superseded"
    );
    report(&files, &counts.lock().expect("no consumer panicked"))
}

/// Leases, works and acks until the queue holds nothing that could still become ready.
async fn consume(name: &str, queue: TypedQueue<CountFile>, counts: Counts) -> anyhow::Result<()> {
    loop {
        let Some(leased) = queue.lease().await? else {
            let stats = queue.queue().stats().await?;
            if stats.ready + stats.delayed + stats.leased == 0 {
                return Ok(());
            }
            // Somebody's lease is running. This returns as soon as it has run out.
            queue.queue().wait(Duration::from_secs(10)).await?;
            continue;
        };
        let message = match leased {
            Ok(message) => message,
            Err(error) => {
                queue
                    .queue()
                    .dead_letter(&error.delivery.receipt, error.to_string())
                    .await?;
                continue;
            }
        };
        let path = message.value.path;
        let words = words_in(&path)?;
        counts
            .lock()
            .expect("no consumer panicked")
            .insert(path.clone(), words);
        let outcome = queue.queue().ack(&message.delivery.receipt).await?;
        let attempt = message.delivery.attempt;
        println!(
            "{name:8} counted {}: {words} words (attempt {attempt}, ack {outcome:?})",
            name_of(&path)
        );
    }
}

fn report(files: &[PathBuf], counts: &BTreeMap<PathBuf, usize>) -> anyhow::Result<()> {
    let total: usize = counts.values().sum();
    println!("\n{total} words in {} files", counts.len());
    let directly = files
        .iter()
        .map(|path| words_in(path))
        .sum::<anyhow::Result<usize>>()?;
    ensure!(total == directly, "counted directly there are {directly}");
    println!("counted directly: {directly}, the same");
    Ok(())
}

fn text_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in listed {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "no .txt file in {}", folder.display());
    Ok(files)
}

fn words_in(path: &Path) -> anyhow::Result<usize> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.split_whitespace().count())
}

fn name_of(path: &Path) -> std::path::Display<'_> {
    Path::new(path.file_name().unwrap_or(path.as_os_str())).display()
}
