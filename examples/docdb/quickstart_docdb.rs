//! The quickstart on MongoDB. The program is `examples/quickstart.rs`; only the backend differs.
//!
//! ```text
//! cargo run --example quickstart -- --backend docdb
//! ```

use std::sync::Arc;

use mongodb_test_server::MongoServer;
use queue_docdb::DocDbBackend;

// Its `main`, for the backend in memory, is not used here.
#[allow(dead_code)]
#[path = "../quickstart.rs"]
mod quickstart;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = MongoServer::start().await?;
    let database = server.scratch_database();
    let builder = DocDbBackend::builder(server.uri()).database(database.name());
    let backend = builder.connect().await?;
    let counted = quickstart::count_words(Arc::new(backend)).await;
    drop(database);
    server.stop().await?;
    counted
}

#[test]
fn on_mongodb() -> anyhow::Result<()> {
    main()
}
