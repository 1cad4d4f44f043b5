//! A queue without its unique index, for a while: what an operator dropped, and what the server builds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::{Either, select};
use mongodb::{bson::doc, event::command::CommandEvent};
use mongodb_test_server::{MongoServer, ServerOptions};
use queue_api::{
    EnqueueOutcome::{Duplicate, Stored},
    ErrorKind, QueueAdmin, Redrive,
};
use queue_docdb::DocDbBackend;

use crate::fixture::{Fixture, applied, ids, lease, message, name, queue_of};

tests! {
    on_one_thread:
        what_was_stored_twice_can_be_worked_off_or_deleted,
        a_queue_without_its_version_keeps_its_kind;
    on_threads:
        an_index_that_is_being_built_is_waited_for
}

/// Processes that know the queue store an id twice after an operator has dropped the collection. Then the
/// index cannot be made.
async fn what_was_stored_twice_can_be_worked_off_or_deleted() {
    let fixture = Fixture::new().await;
    let other = fixture.another_backend(fixture.clock.clone()).await;
    let store_twice = async || {
        for backend in [&fixture.backend, &other] {
            backend.prepare(&name()).await.unwrap();
        }
        fixture.documents().drop().await.unwrap();
        for backend in [&fixture.backend, &other] {
            let stored = queue_of(backend).enqueue(&message("a")).await;
            assert_eq!(stored.unwrap(), Stored);
        }
    };

    store_twice().await;
    let new = fixture.another_backend(fixture.clock.clone()).await;
    let queue = queue_of(&new);
    let error = queue.enqueue(&message("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert!(error.to_string().contains("index: ids_1"), "{error}");
    let redrive = async || {
        let which = Redrive::Ids(vec![message("a").id]);
        new.redrive(&name(), &which).await.unwrap()
    };
    for dead in [0..1, 1..2, 0..2] {
        let leased = lease(&queue, 9).await;
        assert_eq!(ids(&leased), ["a", "a"]);
        for delivery in &leased[dead.clone()] {
            applied(queue.dead_letter(&delivery.receipt, "no")).await;
        }
        assert_eq!(redrive().await, dead.len() as u64);
        for delivery in leased {
            let _ = queue.release(&delivery.receipt).await.unwrap();
        }
    }
    let leased = lease(&queue, 9).await;
    assert_eq!(ids(&leased), ["a", "a"]);
    for delivery in leased {
        applied(queue.ack(&delivery.receipt)).await;
    }
    assert_eq!(queue.enqueue(&message("a")).await.unwrap(), Stored);
    assert_eq!(queue.enqueue(&message("a")).await.unwrap(), Duplicate);

    store_twice().await;
    let builds = Arc::new(AtomicUsize::new(0));
    let count = builds.clone();
    let see = move |event: &CommandEvent| {
        let is_build =
            matches!(event, CommandEvent::Started(it) if it.command_name == "createIndexes");
        count.fetch_add(usize::from(is_build), Ordering::Relaxed);
    };
    let watched = fixture.watched(see).connect().await.unwrap();
    for _ in 0..5 {
        let leased = lease(&queue_of(&watched), 1).await;
        applied(queue_of(&watched).nack(&leased[0].receipt, Duration::ZERO)).await;
    }
    // Each once, and again if the server is slow.
    let builds = builds.load(Ordering::Relaxed);
    assert!(builds < 8, "the leases built {builds} indexes");

    let new = fixture.another_backend(fixture.clock.clone()).await;
    new.delete_queue(&name()).await.unwrap();
    let queue = queue_of(&new);
    assert_eq!(queue.enqueue(&message("a")).await.unwrap(), Stored);
    for backend in [&fixture.backend, &other] {
        let again = queue_of(backend).enqueue(&message("a")).await;
        assert_eq!(again.unwrap(), Duplicate);
    }
}

/// The server lists an index from the beginning of its build.
async fn an_index_that_is_being_built_is_waited_for() {
    let server = MongoServer::start_dedicated(ServerOptions::new());
    let server = server.await.unwrap();
    let connect = async || {
        let builder = DocDbBackend::builder(server.uri()).database("shop");
        let backend = builder.without_change_stream().connect().await;
        backend.unwrap()
    };
    let first = connect().await;
    queue_of(&first).enqueue(&message("a")).await.unwrap();
    let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
    let admin = client.database("admin");
    let documents = client
        .database("shop")
        .collection::<mongodb::bson::Document>("queue.mail");
    documents.drop_index("ids_1").await.unwrap();
    let fail_point = async |mode: &str| {
        let set = doc! { "configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode };
        admin.run_command(set).await.unwrap();
    };
    fail_point("alwaysOn").await;
    let builders = async || {
        let running = doc! { "command.createIndexes": "queue.mail" };
        let stages = [
            doc! { "$currentOp": {} },
            doc! { "$match": running },
            doc! { "$count": "n" },
        ];
        let mut found = admin.aggregate(stages).await.unwrap();
        match found.advance().await.unwrap() {
            true => found.deserialize_current().unwrap().get_i32("n").unwrap(),
            false => 0,
        }
    };
    let builders_are = async |count| {
        while builders().await < count {
            tokio::task::yield_now().await;
        }
    };

    let building = connect().await;
    let building = tokio::spawn(async move { building.prepare(&name()).await });
    builders_are(1).await;
    let another = connect().await;
    let enqueue = tokio::spawn(async move { queue_of(&another).enqueue(&message("a")).await });
    let joined = Box::pin(builders_are(2));
    let enqueue = match select(enqueue, joined).await {
        Either::Left((outcome, _)) => panic!("it did not wait: {:?}", outcome.unwrap()),
        Either::Right(((), enqueue)) => enqueue,
    };
    fail_point("off").await;
    assert_eq!(enqueue.await.unwrap().unwrap(), Duplicate);
    building.await.unwrap().unwrap();
    server.stop().await.unwrap();
}

/// An operator has dropped the collection, and a process that did not know enqueued. Another one has
/// another `entry_size`.
async fn a_queue_without_its_version_keeps_its_kind() {
    for [first, second] in [[16, 1], [1, 16]] {
        let fixture = Fixture::new().await;
        let connect = async |size| {
            let builder = fixture.watched(|_| ()).entry_size(size);
            builder.connect().await.unwrap()
        };
        let (first, second) = (connect(first).await, connect(second).await);
        first.prepare(&name()).await.unwrap();
        fixture.documents().drop().await.unwrap();
        let both = ["a", "b"].map(message);
        queue_of(&first).enqueue_batch(&both).await.unwrap();
        let queue = queue_of(&second);
        assert_eq!(lease(&queue, 1).await.len(), 1);
        let again = queue.enqueue_batch(&both).await.unwrap();
        assert_eq!(again, [Duplicate, Duplicate]);
    }
}
