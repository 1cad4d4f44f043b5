//! Names of collections that the server keeps for itself. On reads it says that they are empty.

use mongodb_test_server::{MongoServer, documentdb::Engines};
use queue_api::{ErrorKind, LeaseOutcome, Queue, QueueAdmin, QueueName};
use queue_docdb::DocDbBackend;

use crate::{
    fixture::{Fixture, TRANSACTIONAL, builder, message},
    foreign::{CALLS, receipt_of_another_queue},
};

tests! {
    on_one_thread:
        a_queue_whose_collection_would_be_the_servers_is_refused_by_every_call,
        names_that_only_look_like_it_work
}

async fn connect(fixture: &Fixture, prefix: &str) -> DocDbBackend {
    let server = MongoServer::shared().await.unwrap();
    let builder = builder(server.uri(), &fixture.gate)
        .database(fixture.database.name())
        .collection_prefix(prefix)
        .clock(fixture.clock.clone());
    builder.connect().await.unwrap()
}

async fn a_queue_whose_collection_would_be_the_servers_is_refused_by_every_call() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let receipt = receipt_of_another_queue(&fixture).await;
    let mut complaints = Vec::new();
    for (prefix, queue) in [
        ("queue.", "system.users"),
        ("queue.", "system."),
        ("queue.", "a.system.b"),
        ("", "system.users"),
        ("", "system.views"),
        ("", "a.system.b"),
        ("sys", "tem.profile"),
        ("a.sys", "tem.b"),
        ("a.", "system.b"),
    ] {
        let backend = connect(&fixture, prefix).await;
        let name = QueueName::new(queue).unwrap();
        for call in CALLS {
            let collection = format!("`{prefix}{queue}`");
            match call.make_on(&name, &backend, &receipt).await {
                Err(error)
                    if error.kind() == ErrorKind::InvalidInput
                        && error.to_string().contains(&collection) => {}
                other => complaints.push(format!("{collection}, {call:?}: {other:?}")),
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

async fn names_that_only_look_like_it_work() {
    let fixture = Fixture::new().await;
    for (prefix, queue) in [
        ("queue.", "system"),
        ("queue.", "systems.a"),
        ("queue.", "a.system"),
        ("queue.", "System.a"),
        ("queue.", "a.SYSTEM.b"),
        ("", "system"),
        ("", "systemx.a"),
        ("system", "x"),
        ("system_", "a"),
    ] {
        let backend = connect(&fixture, prefix).await;
        let queue = Queue::new(std::sync::Arc::new(backend.clone()), queue).unwrap();
        queue.enqueue(&message("a")).await.unwrap();
        let delivery = queue.lease().await.unwrap().expect("it is ready");
        let acked = queue.ack(&delivery.receipt).await.unwrap();
        assert_eq!(acked, LeaseOutcome::Applied);
        let listed = backend.list_queues().await.unwrap();
        assert!(listed.contains(queue.name()), "{prefix} {listed:?}");
        backend.delete_queue(queue.name()).await.unwrap();
    }
}
