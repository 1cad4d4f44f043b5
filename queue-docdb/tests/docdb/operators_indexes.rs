//! Indexes that an operator made, renamed, hid or changed.

use mongodb::{
    Client,
    bson::{Bson, Document, doc},
    options::{ClientOptions, ServerApi, ServerApiVersion},
};
use mongodb_test_server::MongoServer;
use queue_api::{Error, ErrorKind, PageOptions, Purge, QueueAdmin, QueueBackend, Redrive};
use queue_docdb::DocDbBackend;

use crate::fixture::{Fixture, MINUTE, applied, lease, message, name, queue_of};

tests! {
    on_one_thread:
        an_index_on_the_same_keys_serves_whatever_its_name,
        an_index_that_would_not_serve_is_named_by_enqueue_and_lease,
        a_second_index_on_the_same_keys_is_named,
        a_name_that_other_keys_have_is_named,
        an_index_that_is_hidden_later_is_named,
        a_client_with_the_strict_stable_api_works
}

/// The names that this crate gives its indexes.
const CLAIM: &str = "visible_at_1";
const IDS: &str = "ids_1";
const DEAD: &str = "dead_key_1";
const PARTED: &str = "parted_1";

/// All of them and that of `_id`.
const ALL: usize = 5;

/// The keys of the index that has this name.
fn keys(name: &str) -> Document {
    doc! { name.trim_end_matches("_1"): 1 }
}

/// A prepared queue with `index` instead of the one of this name, and a new instance.
async fn with_index(fixture: &Fixture, replaced: &str, index: Document) -> DocDbBackend {
    fixture.backend.prepare(&name()).await.unwrap();
    fixture.documents().drop_index(replaced).await.unwrap();
    let create = doc! { "createIndexes": "queue.mail", "indexes": [index] };
    fixture.raw.run_command(create).await.unwrap();
    fixture.another_backend(fixture.clock.clone()).await
}

/// Everything that uses an index.
async fn check_all_calls(backend: &DocDbBackend) {
    let queue = queue_of(backend);
    let messages = ["a", "b", "c"].map(message);
    queue.enqueue_batch(&messages).await.unwrap();
    let deliveries = lease(&queue, 2).await;
    assert_eq!(deliveries.len(), 2);
    for delivery in deliveries {
        applied(queue.dead_letter(&delivery.receipt, "no")).await;
    }
    queue.wait(MINUTE).await.unwrap();
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.ready, stats.dead), (1, 2));
    assert_eq!(backend.peek(&name(), 9).await.unwrap().len(), 1);
    let page = PageOptions::new(9);
    assert_eq!(backend.messages(&name(), &page).await.unwrap().len(), 1);
    let listed = backend.dead_letters(&name(), &page).await;
    let listed = listed.unwrap();
    let listed: Vec<_> = listed.iter().map(|letter| letter.id.as_str()).collect();
    assert_eq!(listed, ["a", "b"]);
    let some = Redrive::Ids(vec![crate::fixture::id("a")]);
    assert_eq!(backend.redrive(&name(), &some).await.unwrap(), 1);
    assert_eq!(backend.purge(&name(), Purge::Dead).await.unwrap(), 1);
    assert_eq!(backend.redrive(&name(), &Redrive::All).await.unwrap(), 0);
    assert_eq!(backend.purge(&name(), Purge::Live).await.unwrap(), 2);
}

async fn an_index_on_the_same_keys_serves_whatever_its_name() {
    let one = |number: Bson| doc! { "key": { "visible_at": number } };
    for (replaced, mut index) in [
        (CLAIM, doc! {}),
        (CLAIM, doc! { "background": true }),
        (CLAIM, one(Bson::Int64(1))),
        (CLAIM, one(Bson::Double(1.0))),
        (IDS, doc! { "unique": true }),
        (DEAD, doc! { "sparse": true }),
        (DEAD, doc! {}),
        (DEAD, doc! { "expireAfterSeconds": 60 }),
        (PARTED, doc! { "sparse": true }),
        (PARTED, doc! {}),
    ] {
        if !index.contains_key("key") {
            index.insert("key", keys(replaced));
        }
        index.insert("name", "mine");
        let fixture = Fixture::new().await;
        let backend = with_index(&fixture, replaced, index.clone()).await;
        check_all_calls(&backend).await;
        let names = fixture.documents().list_index_names().await.unwrap();
        assert_eq!(names.len(), ALL, "{index}: {names:?}");
    }
}

fn assert_names_the_index(error: &Error, index: &str, what: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error:?}");
    assert!(text.contains(&format!("`{index}`")), "{what}: {text}");
    let says_what_to_do = text.contains("drop") || text.contains("unhide");
    assert!(says_what_to_do, "{what}: {text}");
}

async fn check_refused(backend: &DocDbBackend, index: &str, what: &str) {
    let queue = queue_of(backend);
    for _ in 0..2 {
        let error = queue.enqueue(&message("new")).await.unwrap_err();
        assert_names_the_index(&error, index, what);
        let error = queue.lease().await.unwrap_err();
        assert_names_the_index(&error, index, what);
        for which in [Purge::Live, Purge::Dead] {
            let error = backend.purge(&name(), which).await.unwrap_err();
            assert_names_the_index(&error, index, what);
        }
        let redriven = backend.redrive(&name(), &Redrive::All).await;
        assert_names_the_index(&redriven.unwrap_err(), index, what);
    }
}

/// One ready message and one dead letter.
async fn fill(fixture: &Fixture) {
    let queue = fixture.queue();
    for each in ["a", "b"] {
        queue.enqueue(&message(each)).await.unwrap();
    }
    let first = queue.lease().await.unwrap().expect("it is ready");
    applied(queue.dead_letter(&first.receipt, "no")).await;
}

/// Reads see the messages of [`fill`], whatever the indexes.
async fn check_reads(backend: &DocDbBackend, what: &str) {
    let stats = queue_of(backend).stats().await;
    let stats = stats.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!((stats.ready, stats.dead), (1, 1), "{what}");
    assert!(stats.oldest_ready.is_some(), "{what}");
    let peeked = backend.peek(&name(), 9).await.unwrap();
    assert_eq!(peeked.len(), 1, "{what}");
    let page = PageOptions::new(9);
    let messages = backend.messages(&name(), &page).await.unwrap();
    assert_eq!(messages.len(), 1, "{what}");
    let letters = backend.dead_letters(&name(), &page).await;
    let letters = letters.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(letters.len(), 1, "{what}");
    backend.wait(&name(), MINUTE).await.unwrap();
}

/// The documents and the indexes.
async fn counts(fixture: &Fixture) -> (u64, usize) {
    let documents = fixture.documents();
    let count = documents.count_documents(doc! {}).await.unwrap();
    (count, documents.list_index_names().await.unwrap().len())
}

async fn an_index_that_would_not_serve_is_named_by_enqueue_and_lease() {
    let partial = doc! { "attempts": { "$gt": 0 } };
    let collation = doc! { "locale": "en", "strength": 2 };
    let options = [
        ("plain", doc! {}),
        ("hidden", doc! { "hidden": true }),
        ("unique", doc! { "unique": true }),
        ("partial", doc! { "partialFilterExpression": partial }),
        ("collation", doc! { "collation": collation }),
        ("sparse", doc! { "sparse": true }),
        ("hidden and sparse", doc! { "sparse": true, "hidden": true }),
        ("unique and sparse", doc! { "sparse": true, "unique": true }),
    ];
    let queue_name = name();
    for (what, options) in options {
        for replaced in [CLAIM, IDS, DEAD, PARTED] {
            let serves = match replaced {
                CLAIM => what == "plain",
                IDS => what == "unique",
                _ => matches!(what, "plain" | "sparse"),
            };
            // It cannot be built: two documents lack the key.
            let is_impossible = replaced != IDS && what == "unique";
            if serves || is_impossible {
                continue;
            }
            let fixture = Fixture::new().await;
            let what = format!("{what} {replaced}");
            // Under another name, and under this crate's.
            for name in ["mine", replaced] {
                fill(&fixture).await;
                let mut index = doc! { "key": keys(replaced), "name": name };
                index.extend(options.clone());
                let backend = with_index(&fixture, replaced, index).await;
                check_reads(&backend, &what).await;
                check_refused(&backend, name, &what).await;
                check_reads(&backend, &what).await;
                assert_eq!(counts(&fixture).await, (3, ALL), "{what}");
                fixture.documents().drop().await.unwrap();
                fixture.backend.delete_queue(&queue_name).await.unwrap();
            }
        }
    }
}

/// Two indexes on the same keys make a hint ambiguous.
async fn a_second_index_on_the_same_keys_is_named() {
    let fixture = Fixture::new().await;
    fixture.backend.prepare(&name()).await.unwrap();
    let partial = doc! { "attempts": { "$gt": 0 } };
    let second = doc! { "key": keys(CLAIM), "name": "mine", "partialFilterExpression": partial };
    let create = doc! { "createIndexes": "queue.mail", "indexes": [second] };
    fixture.raw.run_command(create).await.unwrap();
    let other = fixture.another_backend(fixture.clock.clone()).await;
    check_refused(&other, "mine", "second").await;
}

async fn a_name_that_other_keys_have_is_named() {
    for replaced in [CLAIM, IDS, DEAD, PARTED] {
        let fixture = Fixture::new().await;
        let index = doc! { "key": { "other": 1 }, "name": replaced };
        let backend = with_index(&fixture, replaced, index).await;
        check_refused(&backend, replaced, "taken").await;
        assert_eq!(counts(&fixture).await, (1, ALL), "no index was made");
    }
}

/// The instance has used the queue before, so it notices by a failing lease.
async fn an_index_that_is_hidden_later_is_named() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue.enqueue(&message("a")).await.unwrap();
    let hide = |hidden: bool| {
        let index = doc! { "name": CLAIM, "hidden": hidden };
        fixture
            .raw
            .run_command(doc! { "collMod": "queue.mail", "index": index })
    };
    hide(true).await.unwrap();
    let error = queue.lease().await.unwrap_err();
    assert_names_the_index(&error, CLAIM, "hidden later");
    check_refused(&fixture.backend, CLAIM, "hidden later").await;
    assert_eq!(queue.stats().await.unwrap().ready, 1, "reads still work");
    hide(false).await.unwrap();
    assert_eq!(lease(&queue, 9).await.len(), 1);
}

/// A client that may use the Stable API only, which has no hints of sparse indexes.
async fn strict(fixture: &Fixture) -> DocDbBackend {
    let server = MongoServer::shared().await.unwrap();
    let mut options = ClientOptions::parse(server.uri()).await.unwrap();
    let mut api = ServerApi::builder().version(ServerApiVersion::V1).build();
    api.strict = Some(true);
    options.server_api = Some(api);
    options.retry_writes = Some(false);
    let client = Client::with_options(options).unwrap();
    DocDbBackend::from_database(client.database(fixture.raw.name()))
        .clock(fixture.clock.clone())
        .without_change_stream()
        .connect()
        .await
        .unwrap()
}

async fn a_client_with_the_strict_stable_api_works() {
    for is_prepared in [true, false] {
        let fixture = Fixture::new().await;
        if is_prepared {
            fixture.backend.prepare(&name()).await.unwrap();
        }
        let backend = strict(&fixture).await;
        check_all_calls(&backend).await;
        assert_eq!(backend.list_queues().await.unwrap(), [name()]);
        backend.delete_queue(&name()).await.unwrap();
        // It restores what was dropped, and that serves others.
        queue_of(&backend).enqueue(&message("a")).await.unwrap();
        fixture.documents().drop_indexes().await.unwrap();
        let again = strict(&fixture).await;
        assert_eq!(lease(&queue_of(&again), 9).await.len(), 1);
        assert_eq!(counts(&fixture).await, (2, ALL));
        backend.delete_queue(&name()).await.unwrap();
        queue_of(&backend).enqueue(&message("a")).await.unwrap();
        backend.purge(&name(), Purge::Live).await.unwrap();
        check_all_calls(&fixture.backend).await;
    }
}
