//! A collection with a unique index or a collation that somebody made: `Duplicate` is only said
//! for an id that the queue holds.

use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::{Collation, IndexOptions},
};
use mongodb_test_server::documentdb::{Engine, Engines};
use queue_api::{EnqueueOutcome, Error, ErrorKind, NewMessage, Queue};

use crate::fixture::{Fixture, ids, lease, message, name};

use EnqueueOutcome::{Duplicate, Stored};

const TRANSACTIONAL: &[Engine] = &[Engine::V4_0, Engine::V5_0, Engine::V8_0];

/// A queue that holds the message `a`, with a unique index on these keys.
async fn with_index(keys: Document, index: &str) -> (Fixture, Queue) {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let queue = fixture.queue();
    queue.enqueue(&message("a")).await.unwrap();
    let mut options = IndexOptions::default();
    options.unique = Some(true);
    options.name = Some(index.to_owned());
    let model = IndexModel::builder().keys(keys).options(options).build();
    fixture.documents().create_index(model).await.unwrap();
    (fixture, queue)
}

/// The same payload under another id.
fn rival(id: &str) -> NewMessage {
    let mut rival = message(id);
    rival.payload = message("a").payload;
    rival
}

fn assert_names_the_index(error: &Error, index: &str) {
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("`{index}`")), "{text}");
    assert!(text.contains("drop"), "it says what to do: {text}");
}

#[tokio::test]
async fn what_another_unique_index_refuses_is_not_called_a_duplicate() {
    let indexes = [
        (doc! { "payload": 1 }, "payload_1"),
        (doc! { "payload": 1, "attempts": 1 }, "index: _id_ of mine"),
        (doc! { "attempts": 1 }, "attempts"),
    ];
    for (keys, index) in indexes {
        let (fixture, queue) = with_index(keys, index).await;
        let error = queue.enqueue(&rival("b")).await.unwrap_err();
        assert_names_the_index(&error, index);
        let batch = [message("a"), rival("c")];
        let error = queue.enqueue_batch(&batch).await.unwrap_err();
        assert_names_the_index(&error, index);
        // What the queue holds is a duplicate all the same.
        assert_eq!(queue.enqueue(&message("a")).await.unwrap(), Duplicate);
        assert_eq!(queue.enqueue(&rival("a")).await.unwrap(), Duplicate);
        assert_eq!(ids(&lease(&queue, 9).await), ["a"]);
        drop(fixture);
    }
}

#[tokio::test]
async fn nor_is_it_in_a_transaction() {
    let (fixture, _) = with_index(doc! { "payload": 1 }, "payload_1").await;
    let mut session = fixture.backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    let error = queues.enqueue(&name(), &[rival("b")]).await.unwrap_err();
    assert_names_the_index(&error, "payload_1");
    assert!(!error.is_retryable());
    session.abort_transaction().await.unwrap();
}

#[tokio::test]
async fn a_collation_that_takes_ids_for_equal_is_named() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let collation = Collation::builder()
        .locale("en".to_owned())
        .strength(mongodb::options::CollationStrength::Secondary)
        .build();
    let made = fixture
        .raw
        .create_collection("queue.mail")
        .collation(collation);
    made.await.unwrap();
    let queue = fixture.queue();
    assert_eq!(queue.enqueue(&message("a")).await.unwrap(), Stored);
    assert_eq!(queue.enqueue(&message("a")).await.unwrap(), Duplicate);
    let error = queue.enqueue(&message("A")).await.unwrap_err();
    assert_names_the_index(&error, "_id_");
    assert!(error.to_string().contains("collation"), "{error}");

    let mut session = fixture.backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    let error = queues.enqueue(&name(), &[message("A")]).await.unwrap_err();
    assert_names_the_index(&error, "_id_");
    session.abort_transaction().await.unwrap();
}
