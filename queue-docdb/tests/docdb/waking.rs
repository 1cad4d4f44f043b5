//! Waits, and what wakes them when it happens in another process.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb_test_server::documentdb::{Engine, Engines};
use queue_api::{Queue, Result};
use queue_docdb::DocDbBackend;
use tokio::{task::JoinHandle, time::Instant};

use crate::fixture::{Fixture, MINUTE, message, queue_of};

/// Those that have change streams.
pub(crate) const STREAMING: &[Engine] = &[Engine::V3_6, Engine::V4_0, Engine::V5_0, Engine::V8_0];

/// Less than what a wait that relies on a change stream takes for its next look.
const PATIENCE: Duration = Duration::from_secs(20);

fn waiting(queue: Queue) -> JoinHandle<Result<()>> {
    tokio::spawn(async move { queue.wait(60 * MINUTE).await })
}

/// Looks again and again until it sees what it waits for.
async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::task::yield_now().await;
    }
}

/// The cursor of the change stream on this database, while it is being read.
async fn stream(fixture: &Fixture) -> Option<i64> {
    let here = doc! {
        // One that waits for news and one that does not are listed under different names.
        "cursor.originatingCommand.$db": fixture.raw.name(),
        "cursor.originatingCommand.pipeline.0.$changeStream": { "$exists": true },
    };
    let all = doc! { "$currentOp": { "idleCursors": true, "allUsers": true } };
    let seen: Vec<Document> = fixture
        .raw
        .client()
        .database("admin")
        .aggregate([all, doc! { "$match": here }])
        .await
        .expect("the operations under way")
        .try_collect()
        .await
        .expect("a small batch");
    let cursor = seen.first()?.get_document("cursor").ok()?;
    cursor.get_i64("cursorId").ok()
}

pub(crate) async fn open_stream(fixture: &Fixture) -> i64 {
    until("a change stream", async || stream(fixture).await).await
}

/// How often the queue was looked at since profiling began.
async fn looks(fixture: &Fixture) -> u64 {
    let finds = doc! { "op": "query", "ns": format!("{}.queue.mail", fixture.raw.name()) };
    let profile = fixture.raw.collection::<Document>("system.profile");
    profile.count_documents(finds).await.expect("a count")
}

#[tokio::test]
async fn news_of_another_process_makes_a_wait_look() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    fixture
        .raw
        .run_command(doc! { "profile": 2 })
        .await
        .unwrap();
    let other = fixture.streaming().connect().await.unwrap();
    let waits = waiting(queue_of(&other));
    open_stream(&fixture).await;
    // One look when it began, and one when the stream was open.
    until("two looks", async || {
        (looks(&fixture).await >= 2).then_some(())
    })
    .await;

    // Nothing that a wait could find, but news all the same.
    fixture.documents().insert_one(doc! {}).await.unwrap();
    until("a third look", async || {
        (looks(&fixture).await >= 3).then_some(())
    })
    .await;
    assert!(!waits.is_finished());
    fixture.queue().enqueue(&message("a")).await.unwrap();
    waits.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_was_cut_off_is_taken_up_again() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    let other = fixture.streaming().connect().await.unwrap();
    let waits = waiting(queue_of(&other));
    let cut_off = open_stream(&fixture).await;
    fixture
        .raw
        .run_command(doc! { "killCursors": "$cmd.aggregate", "cursors": [cut_off] })
        .await
        .unwrap();
    let another = async || stream(&fixture).await.filter(|cursor| *cursor != cut_off);
    until("another stream", another).await;
    fixture.queue().enqueue(&message("a")).await.unwrap();
    waits.await.unwrap().unwrap();
}

#[tokio::test]
async fn there_is_one_stream_for_all_that_wait_and_it_goes_with_the_backend() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    let other = fixture.streaming().connect().await.unwrap();
    let queues = ["mail", "parcels"].map(|name| queue_named(&other, name));
    let waits = queues.map(waiting);
    let cursor = open_stream(&fixture).await;
    for (name, wait) in ["mail", "parcels"].into_iter().zip(waits) {
        let here = queue_named(&fixture.backend, name);
        here.enqueue(&message("a")).await.unwrap();
        wait.await.unwrap().unwrap();
        assert_eq!(open_stream(&fixture).await, cursor, "{name}");
    }
    drop(other);
    let gone = async || stream(&fixture).await.is_none().then_some(());
    until("the end of the stream", gone).await;
}

#[tokio::test]
async fn without_a_stream_a_wait_looks_again() {
    let fixture = Fixture::new().await;
    let other = fixture.another_backend(fixture.clock.clone()).await;
    let waits = waiting(queue_of(&other));
    fixture.queue().enqueue(&message("a")).await.unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!(stream(&fixture).await, None);
}

/// The stream would hold it for seconds at a time, and calls time out.
#[tokio::test]
async fn in_a_pool_of_one_connection_there_is_no_stream() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    let other = fixture
        .streaming()
        .max_pool_size(1)
        .connect()
        .await
        .unwrap();
    let waits = waiting(queue_of(&other));
    fixture.queue().enqueue(&message("a")).await.unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!(stream(&fixture).await, None);
}

fn queue_named(backend: &DocDbBackend, name: &str) -> Queue {
    Queue::new(std::sync::Arc::new(backend.clone()), name).expect("a queue name")
}
