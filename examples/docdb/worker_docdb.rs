//! The worker of `examples/worker.rs`, on MongoDB or Amazon DocumentDB. Start it in two terminals
//! to see two processes share a queue.
//!
//! ```text
//! cargo run --example worker_docdb -- --uri mongodb://localhost --database example
//! ```

use std::sync::Arc;

use clap::Parser;
use queue_docdb::DocDbBackend;

// Its `main`, for the backend in memory, is not used here.
#[allow(dead_code)]
#[path = "../worker.rs"]
mod worker;

#[derive(Parser)]
struct Arguments {
    /// The connection string of a MongoDB or DocumentDB.
    #[arg(long)]
    uri: String,
    /// The database with the queue.
    #[arg(long)]
    database: String,
    #[command(flatten)]
    worker: worker::Arguments,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let builder = DocDbBackend::builder(&arguments.uri).database(&arguments.database);
    let backend = Arc::new(builder.connect().await?);
    worker::run(backend, arguments.worker, worker::stop_on_signal()).await
}
