//! The schema version of a queue.

use mongodb::bson::{Document, doc};
use queue_api::{ErrorKind, NewMessage, Purge, QueueAdmin};

use crate::fixture::{Fixture, lease, message, name};

tests! {
    on_one_thread:
        a_queue_has_its_schema_version,
        a_queue_of_another_version_is_refused_and_not_changed,
        an_instance_that_trusts_the_old_version_notices_the_new_one,
        many_instances_may_start_at_once,
        a_dropped_queue_gets_its_version_again
}

/// The index of claims.
const INDEX: &str = "visible_at_1";

fn id() -> Document {
    doc! { "_id": { "queue-docdb": "schema" } }
}

impl Fixture {
    /// Does what another version of the library would do with the queue.
    async fn upgrade(&self) {
        let version = doc! { "$set": { "version": 4_i64 } };
        let documents = self.documents();
        let updated = documents.update_one(id(), version).upsert(true).await;
        updated.expect("an update");
    }
}

async fn a_queue_has_its_schema_version() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue.enqueue(&message("a")).await.unwrap();
    let version = fixture.documents().find_one(id()).await.unwrap();
    let version = version.unwrap();
    assert_eq!(version.get_i64("version").unwrap(), 3);
    // The unique index on ids refuses a second document without any.
    let ids = version.get_array("ids").unwrap();
    assert_eq!(*ids, [doc! { "queue-docdb": "schema" }.into()]);

    // It is not a message, for any call.
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.ready, stats.delayed, stats.dead), (1, 0, 0));
    assert_eq!(fixture.backend.peek(&name(), 9).await.unwrap().len(), 1);
    assert_eq!(
        fixture.backend.purge(&name(), Purge::Live).await.unwrap(),
        1
    );
    assert!(lease(&queue, 9).await.is_empty());
    assert!(fixture.documents().find_one(id()).await.unwrap().is_some());
}

async fn a_queue_of_another_version_is_refused_and_not_changed() {
    let fixture = Fixture::new().await;
    fixture.upgrade().await;
    let queue = fixture.queue();
    let errors = [
        queue.enqueue(&message("a")).await.unwrap_err(),
        queue.lease().await.unwrap_err(),
        queue.stats().await.unwrap_err(),
        fixture
            .backend
            .purge(&name(), Purge::Live)
            .await
            .unwrap_err(),
        fixture.backend.delete_queue(&name()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("of schema 4"), "{error}");
    }
    assert_eq!(
        fixture.documents().count_documents(doc! {}).await.unwrap(),
        1
    );
    let indexes = fixture.documents().list_index_names().await.unwrap();
    assert_eq!(indexes, ["_id_"], "none was made");
}

async fn an_instance_that_trusts_the_old_version_notices_the_new_one() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue.enqueue(&message("a")).await.unwrap();
    fixture.upgrade().await;
    let dropped = fixture.documents().drop_index(INDEX).await;
    dropped.expect("the other version has another index");
    let error = queue.lease().await.unwrap_err();
    assert!(error.to_string().contains("of schema 4"), "{error}");
    let indexes = fixture.documents().list_index_names().await.unwrap();
    assert!(!indexes.contains(&INDEX.to_owned()), "{indexes:?}");
    let error = queue.enqueue(&NewMessage::new("b")).await.unwrap_err();
    assert!(error.to_string().contains("of schema 4"), "{error}");
}

async fn many_instances_may_start_at_once() {
    let fixture = Fixture::new().await;
    let mut started = tokio::task::JoinSet::new();
    for n in 0..8 {
        let other = fixture.another_backend(fixture.clock.clone()).await;
        let queue = crate::fixture::queue_of(&other);
        started.spawn(async move { queue.enqueue(&message(&format!("m{n}"))).await });
    }
    while let Some(done) = started.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(fixture.queue().stats().await.unwrap().ready, 8);
}

async fn a_dropped_queue_gets_its_version_again() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue.enqueue(&message("a")).await.unwrap();
    fixture.documents().drop().await.unwrap();
    // This instance notices that the index is missing.
    queue.enqueue(&message("b")).await.unwrap();
    assert_eq!(lease(&queue, 9).await.len(), 1);
    queue.enqueue(&message("c")).await.unwrap();
    let version = fixture.documents().find_one(id()).await.unwrap();
    assert_eq!(version.unwrap().get_i64("version").unwrap(), 3);
}
