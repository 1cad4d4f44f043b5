//! How much memory a backend takes for names of queues. One test in a process of its own, because it
//! counts what the whole process allocates.

use std::{alloc::System, sync::Arc, time::Duration};

use cap::Cap;
use futures::{StreamExt, stream};
use mongodb_test_server::MongoServer;
use queue_api::{NewMessage, Queue, Result};
use queue_docdb::DocDbBackend;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// More than a backend remembers.
const NAMES: usize = 1_200;

/// What is allowed to come with each further round of names, for what the driver keeps.
const ALLOWED: usize = 150 << 10;

/// Calls in flight at the same time.
const AT_ONCE: usize = 20;

/// Uses a queue of its own: a wait that is dropped, one that ends, and a lease.
async fn use_name(backend: &Arc<DocDbBackend>, round: usize, n: usize) -> Result<()> {
    let queue = Queue::new(backend.clone(), format!("queue-{round}-{n}"))?;
    // Not all, because it costs a connection.
    if n.is_multiple_of(20) {
        let dropped = tokio::time::timeout(Duration::ZERO, queue.wait(Duration::MAX));
        assert!(dropped.await.is_err(), "nothing is ready");
    }
    queue.wait(Duration::ZERO).await?;
    assert!(queue.lease().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn names_that_were_used_once_take_no_memory_for_ever() -> Result<()> {
    let server = MongoServer::shared().await.expect("a MongoDB");
    let database = server.scratch_database();
    let backend = DocDbBackend::builder(server.uri())
        .database(database.name())
        .connect();
    let backend = Arc::new(backend.await?);
    // A queue that exists, and is used all the time.
    let queue = Queue::new(backend.clone(), "in-use")?;
    queue.enqueue(&NewMessage::new("")).await?;
    let mut taken = Vec::new();
    for round in 0..3 {
        let uses = stream::iter(0..NAMES).map(|n| use_name(&backend, round, n));
        let mut uses = uses.buffer_unordered(AT_ONCE);
        while let Some(used) = uses.next().await {
            used?;
        }
        taken.push(ALLOCATOR.allocated());
    }
    println!("{taken:?}");
    assert!(
        taken[2] <= taken[1] + ALLOWED,
        "{NAMES} names more, and memory grows from {} to {} bytes",
        taken[1],
        taken[2]
    );
    assert!(queue.lease().await?.is_some());
    Ok(())
}
