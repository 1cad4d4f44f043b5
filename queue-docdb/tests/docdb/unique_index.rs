//! A collection with a unique index or a collation of an operator. `Duplicate` means that the queue
//! holds the id, and nothing else.

use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::{Collation, IndexOptions},
};
use mongodb_test_server::documentdb::Engines;
use queue_api::{EnqueueOutcome, Error, ErrorKind, NewMessage, Queue, QueueTransaction};

use crate::fixture::{Fixture, TRANSACTIONAL, ids, lease, message, name};

use EnqueueOutcome::{Duplicate, Stored};

tests! {
    on_one_thread:
        a_refusal_of_another_unique_index_is_no_duplicate,
        nor_in_a_transaction,
        a_collation_that_makes_ids_equal_is_an_error
}

/// A queue with the message `a` and a unique index on these keys.
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
    assert!(
        text.contains("drop"),
        "the text must say what to do: {text}"
    );
}

async fn a_refusal_of_another_unique_index_is_no_duplicate() {
    let indexes = [
        (doc! { "messages.payload": 1 }, "messages.payload_1"),
        (
            doc! { "messages.payload": 1, "attempts": 1 },
            "index: ids_1 of mine",
        ),
        (doc! { "attempts": 1 }, "attempts"),
    ];
    for (keys, index) in indexes {
        let (fixture, queue) = with_index(keys, index).await;
        let error = queue.enqueue(&rival("b")).await.unwrap_err();
        assert_names_the_index(&error, index);
        let batch = [message("a"), rival("c")];
        let error = queue.enqueue_batch(&batch).await.unwrap_err();
        assert_names_the_index(&error, index);
        // An id that the queue holds is a duplicate, whatever the index.
        assert_eq!(queue.enqueue(&message("a")).await.unwrap(), Duplicate);
        assert_eq!(queue.enqueue(&rival("a")).await.unwrap(), Duplicate);
        assert_eq!(ids(&lease(&queue, 9).await), ["a"]);
        drop(fixture);
    }
}

async fn nor_in_a_transaction() {
    let (fixture, _) = with_index(doc! { "messages.payload": 1 }, "messages.payload_1").await;
    let mut session = fixture.backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    for batch in [
        vec![rival("b")],
        // Documents of their own: the server tries none after one that it refuses.
        vec![rival("b"), message("c").with_max_attempts(7)],
        vec![message("c").with_max_attempts(7), rival("b")],
    ] {
        let error = queues.enqueue(&name(), &batch).await.unwrap_err();
        assert_names_the_index(&error, "messages.payload_1");
        assert!(!error.is_retryable());
        session.abort_transaction().await.unwrap();
        session.start_transaction().await.unwrap();
        queues = fixture.backend.in_transaction(&mut session);
    }
    session.abort_transaction().await.unwrap();
}

async fn a_collation_that_makes_ids_equal_is_an_error() {
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
    assert_names_the_index(&error, "ids_1");
    assert!(error.to_string().contains("collation"), "{error}");

    let mut session = fixture.backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = fixture.backend.in_transaction(&mut session);
    let error = queues.enqueue(&name(), &[message("A")]).await.unwrap_err();
    assert_names_the_index(&error, "ids_1");
    session.abort_transaction().await.unwrap();
}
