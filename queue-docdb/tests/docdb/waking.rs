//! Waits that end because of another process.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb_test_server::documentdb::{Engine, Engines};
use queue_api::{Queue, Result};
use queue_docdb::DocDbBackend;
use tokio::{task::JoinHandle, time::Instant};

use crate::fixture::{Fixture, MINUTE, message, name, queue_of};

tests! {
    on_one_thread:
        a_change_by_another_process_makes_a_wait_look,
        a_killed_stream_is_opened_again,
        all_waits_share_one_stream_which_ends_with_the_backend,
        without_a_stream_a_wait_looks_again,
        a_pool_of_one_connection_has_no_stream,
        an_applications_client_has_a_stream_only_if_it_is_asked_for
}

/// The engines with change streams.
pub(crate) const STREAMING: &[Engine] = &[Engine::V3_6, Engine::V4_0, Engine::V5_0, Engine::V8_0];

/// Shorter than the pause between two looks while a change stream is open.
const LIMIT: Duration = Duration::from_secs(20);

fn waiting(queue: Queue) -> JoinHandle<Result<()>> {
    tokio::spawn(async move { queue.wait(60 * MINUTE).await })
}

/// Looks until it sees something.
async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < LIMIT, "waited in vain for {what}");
        tokio::task::yield_now().await;
    }
}

/// The cursor of the change stream on this database, while it is being read.
async fn stream(fixture: &Fixture) -> Option<i64> {
    let here = doc! {
        // Active and idle cursors have different operations, but the same origin.
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

/// How many finds there were on the queue since profiling began.
async fn looks(fixture: &Fixture) -> u64 {
    let finds = doc! { "op": "query", "ns": format!("{}.queue.mail", fixture.raw.name()) };
    let profile = fixture.raw.collection::<Document>("system.profile");
    profile.count_documents(finds).await.expect("a count")
}

async fn a_change_by_another_process_makes_a_wait_look() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    fixture.backend.prepare(&name()).await.unwrap();
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

    // A change, but not a message.
    fixture.documents().insert_one(doc! {}).await.unwrap();
    until("a third look", async || {
        (looks(&fixture).await >= 3).then_some(())
    })
    .await;
    assert!(!waits.is_finished());
    fixture.queue().enqueue(&message("a")).await.unwrap();
    waits.await.unwrap().unwrap();
}

async fn a_killed_stream_is_opened_again() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    let other = fixture.streaming().connect().await.unwrap();
    let waits = waiting(queue_of(&other));
    let killed = open_stream(&fixture).await;
    fixture
        .raw
        .run_command(doc! { "killCursors": "$cmd.aggregate", "cursors": [killed] })
        .await
        .unwrap();
    let another = async || stream(&fixture).await.filter(|cursor| *cursor != killed);
    until("another stream", another).await;
    fixture.queue().enqueue(&message("a")).await.unwrap();
    waits.await.unwrap().unwrap();
}

async fn all_waits_share_one_stream_which_ends_with_the_backend() {
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

async fn without_a_stream_a_wait_looks_again() {
    let fixture = Fixture::new().await;
    let other = fixture.another_backend(fixture.clock.clone()).await;
    let waits = waiting(queue_of(&other));
    fixture.queue().enqueue(&message("a")).await.unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!(stream(&fixture).await, None);
}

/// The stream would use the only connection for seconds, and calls would time out.
async fn a_pool_of_one_connection_has_no_stream() {
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

/// The size of the pool is unknown, and other backends may use it too.
async fn an_applications_client_has_a_stream_only_if_it_is_asked_for() {
    for asked in [false, true] {
        let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
        let builder = DocDbBackend::from_database(fixture.raw.clone()).clock(fixture.clock.clone());
        let builder = if asked {
            builder.with_change_stream()
        } else {
            builder
        };
        let other = builder.connect().await.unwrap();
        let waits = waiting(queue_of(&other));
        if asked {
            open_stream(&fixture).await;
        }
        fixture.queue().enqueue(&message("a")).await.unwrap();
        waits.await.unwrap().unwrap();
        assert_eq!(stream(&fixture).await.is_some(), asked);
    }
}

fn queue_named(backend: &DocDbBackend, name: &str) -> Queue {
    Queue::new(std::sync::Arc::new(backend.clone()), name).expect("a queue name")
}
