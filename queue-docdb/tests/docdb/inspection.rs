//! Looks at a queue's collection, for tools.

use mongodb::bson::{Document, doc};
use queue_api::QueueAdmin;

use crate::fixture::{Fixture, message, name};

tests! {
    on_one_thread:
        a_queue_exists_from_its_first_message_until_it_is_deleted,
        indexes_that_are_missing_are_named_and_not_made
}

async fn a_queue_exists_from_its_first_message_until_it_is_deleted() {
    let fixture = Fixture::new().await;
    let exists = async || fixture.backend.queue_exists(&name()).await.unwrap();
    assert!(!exists().await);
    assert!(
        fixture
            .raw
            .list_collection_names()
            .await
            .unwrap()
            .is_empty()
    );
    fixture.queue().enqueue(&message("a")).await.unwrap();
    assert!(exists().await);
    fixture.backend.delete_queue(&name()).await.unwrap();
    assert!(!exists().await);

    let documents = fixture.raw.collection::<Document>("queue.mail");
    documents.drop().await.unwrap();
    documents.insert_one(doc! { "x": 1 }).await.unwrap();
    assert!(!exists().await, "another program's");
}

async fn indexes_that_are_missing_are_named_and_not_made() {
    let fixture = Fixture::new().await;
    let missing = async || fixture.backend.missing_indexes(&name()).await;
    assert!(missing().await.unwrap().is_empty(), "there is no queue");
    fixture.queue().enqueue(&message("a")).await.unwrap();
    assert!(missing().await.unwrap().is_empty());
    fixture.documents().drop_index("parted_1").await.unwrap();
    for _ in 0..2 {
        assert_eq!(missing().await.unwrap(), ["parted_1"]);
    }
    let other = mongodb::IndexModel::builder()
        .keys(doc! { "x": 1 })
        .options(
            mongodb::options::IndexOptions::builder()
                .name("parted_1".to_owned())
                .build(),
        )
        .build();
    fixture.documents().create_index(other).await.unwrap();
    let error = missing().await.unwrap_err().to_string();
    assert!(
        error.contains("parted_1") && error.contains("drop it"),
        "{error}"
    );
}
