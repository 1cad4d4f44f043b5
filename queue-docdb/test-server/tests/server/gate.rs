//! What the judge of DocumentDB's commands refuses, and what it does not.

use mongodb::bson::{DateTime, Document, doc};
use mongodb_test_server::documentdb::{Engine, Engines, Gate, judge};
use mongodb_test_server::{MongoServer, ScratchDatabase};

/// What engines refuse in the command.
fn refused(command: &Document) -> Vec<(String, String)> {
    judge(command)
        .into_iter()
        .map(|finding| (finding.item, finding.refused_by.to_string()))
        .collect()
}

const EVERY: &str = "3.6, 4.0, 5.0, 8.0, elastic";

/// Expects a finding for each command: the item, and the engines that refuse it.
#[track_caller]
fn expect_refused<const N: usize>(cases: [(Document, &str, &str); N]) {
    for (command, item, by) in cases {
        let found = refused(&command);
        let expected = (item.to_owned(), by.to_owned());
        assert!(found.contains(&expected), "{expected:?}: {found:?}");
    }
}

#[test]
fn refused_stages_and_writes_are_found() {
    let update = |u: mongodb::bson::Bson| doc! { "update": "c", "updates": [{ "q": {}, "u": u }] };
    expect_refused([
        (
            update(vec![doc! { "$addFields": { "a": 1 } }].into()),
            "update by pipeline",
            EVERY,
        ),
        (
            update(vec![doc! { "$addFields": { "at": "$$NOW" } }].into()),
            "$$NOW",
            EVERY,
        ),
        (
            doc! { "aggregate": "c", "pipeline": [{ "$facet": {} }], "cursor": {} },
            "$facet",
            EVERY,
        ),
        (
            doc! { "insert": "c", "documents": [{}], "txnNumber": 1_i64 },
            "txnNumber of a retryable write",
            EVERY,
        ),
        (
            doc! {
                "insert": "c", "documents": [{}], "txnNumber": 1_i64,
                "startTransaction": true, "autocommit": false,
            },
            "txnNumber in a transaction",
            "3.6, elastic",
        ),
    ]);
}

#[test]
fn refused_indexes_are_found() {
    let index = |options: Document| {
        let mut index = doc! { "key": { "a": 1 }, "name": "a", "background": true };
        index.extend(options);
        doc! { "createIndexes": "c", "indexes": [index] }
    };
    expect_refused([
        (
            index(doc! { "partialFilterExpression": { "a": { "$gt": 1 } } }),
            "partialFilterExpression",
            "3.6, 4.0, elastic",
        ),
        (
            index(doc! { "partialFilterExpression": { "a": { "$in": [1] } } }),
            "$in",
            EVERY,
        ),
        (index(doc! { "unique": true }), "unique", "elastic"),
        (index(doc! { "key": { "a": "hashed" } }), "hashed", EVERY),
        (index(doc! { "hidden": true }), "hidden", EVERY),
        (
            index(doc! { "background": false }),
            "build that locks the collection",
            EVERY,
        ),
    ]);
}

#[test]
fn refused_fields_and_operators_are_found() {
    expect_refused([
        (doc! { "bulkWrite": 1, "ops": [] }, "bulkWrite", EVERY),
        (
            doc! { "find": "c", "filter": {}, "hint": "a_1" },
            "find.hint by name",
            "elastic",
        ),
        (
            doc! { "find": "c", "filter": { "$expr": { "$gt": ["$a", 1] } } },
            "$expr",
            "3.6, elastic",
        ),
        (
            doc! { "find": "c", "filter": { "$or": [{ "a": { "$not": { "$new": 1 } } }] } },
            "$new",
            EVERY,
        ),
        (doc! { "find": "c", "let": {} }, "find.let", EVERY),
        (
            doc! { "delete": "c", "deletes": [{ "q": {}, "limit": 1, "hint": { "a": 1 } }] },
            "delete.deletes.hint",
            EVERY,
        ),
        (
            doc! { "delete": "c", "deletes": [], "writeConcern": { "w": 0 } },
            "writeConcern: w 0",
            "elastic",
        ),
        (
            doc! { "aggregate": 1, "pipeline": [{ "$changeStream": {} }], "cursor": {} },
            "$changeStream",
            "elastic",
        ),
    ]);
}

#[test]
fn values_are_not_taken_for_operators() {
    for command in [
        doc! { "insert": "c", "documents": [{ "a": { "$facet": "$$NOW" } }], "ordered": false },
        doc! { "find": "c", "filter": { "a": { "plain": { "$new": 1 } } }, "limit": 1_i64 },
        doc! { "update": "c", "updates": [{ "q": {}, "u": { "$set": { "a": "$$NOW" } } }] },
        doc! { "find": "c", "filter": { "$and": [{ "at": { "$lte": DateTime::MAX } }] } },
    ] {
        assert_eq!(refused(&command), [], "{command}");
    }
}

/// A client with a gate, and a collection with three documents.
async fn watched(gate: &Gate) -> (mongodb::Collection<Document>, ScratchDatabase) {
    let server = MongoServer::shared().await.expect("a MongoDB");
    let database = server.scratch_database();
    let mut options = mongodb::options::ClientOptions::parse(server.uri())
        .await
        .expect("a valid URI");
    options.retry_writes = Some(false);
    options.command_event_handler = Some(gate.watch());
    let client = mongodb::Client::with_options(options).expect("valid options");
    let collection = client.database(database.name()).collection("c");
    let three = [doc! {}, doc! {}, doc! {}];
    collection.insert_many(three).await.expect("an insert");
    (collection, database)
}

#[tokio::test]
async fn a_cursor_that_stays_open_is_refused() {
    let gate = Gate::new(Engines::ALL);
    let (collection, _database) = watched(&gate).await;
    let mut whole = collection.find(doc! {}).batch_size(4).await.unwrap();
    while whole.advance().await.unwrap() {}
    gate.verify().unwrap();
    let mut parts = collection.find(doc! {}).batch_size(2).await.unwrap();
    while parts.advance().await.unwrap() {}
    let refused = gate.verify().unwrap_err();
    assert!(
        refused.to_string().contains("cursor left open"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_gate_without_verify_fails_its_test() {
    let gate = Gate::new(Engines::of(&[Engine::Elastic]));
    let (collection, _database) = watched(&gate).await;
    let index = mongodb::IndexModel::builder().keys(doc! { "a": 1 }).build();
    collection.create_index(index).await.unwrap();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(gate)));
    let message = dropped.expect_err("a panic");
    let message = message.downcast_ref::<String>().expect("a message");
    assert!(
        message.contains("createIndexes: `build that locks"),
        "{message}"
    );
    assert!(message.contains("DocumentDB elastic"), "{message}");

    // What only other engines refuse passes, and is a finding all the same.
    let gate = Gate::new(Engines::of(&[Engine::V5_0]));
    let (collection, _database) = watched(&gate).await;
    let filter = doc! { "$expr": { "$eq": ["$a", 1] } };
    collection.count_documents(filter).await.unwrap();
    let found = gate.findings();
    assert_eq!(found[0].refused_by.to_string(), "3.6, elastic", "{found:?}");
    gate.verify().unwrap();
}
