//! A new queue, and one that has lost an index, while a member of the replica set is away.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mongodb::{
    Client,
    bson::{Bson, Document, doc},
};
use mongodb_test_server::{Member, MongoReplicaSet, ReplicaSetOptions, documentdb::Gate};
use queue_api::{
    Delivery, ErrorKind, LeaseOptions, LeaseOutcome, ManualClock, Queue, QueueBackend, QueueName,
    QueueStats,
};
use queue_docdb::DocDbBackend;

use crate::{
    failing_server::FailingServer,
    fixture::{MINUTE, all_engines, builder, message},
};

tests! {
    on_one_thread:
        queues_are_made_and_restored_while_a_member_is_down,
        queues_are_made_and_restored_while_a_member_is_delayed,
        an_index_build_that_is_late_is_named,
        a_server_that_knows_no_quorum_builds_without_it
}

/// The index of claims.
const INDEX: &str = "visible_at_1";

/// The members, with the one that will be away.
async fn start() -> (MongoReplicaSet, Member) {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new())
        .await
        .unwrap();
    let primary = set.settled().await.unwrap();
    let secondary = set.members().into_iter().find(|each| *each != primary);
    (set, secondary.unwrap())
}

async fn connect(set: &MongoReplicaSet, gate: &Gate) -> DocDbBackend {
    // The operation timeout is the default.
    let builder = builder(&set.uri(), gate)
        .database("shop")
        .clock(Arc::new(ManualClock::new()));
    builder.connect().await.unwrap()
}

async fn drop_index(set: &MongoReplicaSet, queue: &str) {
    let client = Client::with_uri_str(set.uri()).await.unwrap();
    let documents = client
        .database("shop")
        .collection::<Document>(&format!("queue.{queue}"));
    documents.drop_index(INDEX).await.unwrap();
}

/// A queue works, whichever call is its first.
async fn check_first_uses(backend: &DocDbBackend) {
    let queue_named = |queue: &str| Queue::new(Arc::new(backend.clone()), queue).unwrap();
    for first in ["enqueue", "lease", "stats", "prepare"] {
        let queue = queue_named(first);
        let said = match first {
            "lease" => queue.lease().await.map(|none| assert!(none.is_none())),
            "stats" => queue
                .stats()
                .await
                .map(|stats| assert_eq!(stats, QueueStats::default())),
            "prepare" => backend.prepare(&QueueName::new(first).unwrap()).await,
            _ => Ok(()),
        };
        said.unwrap_or_else(|error| panic!("{first} first: {error:?}"));
        let stored = queue.enqueue(&message("a")).await;
        stored.unwrap_or_else(|error| panic!("enqueue after {first}: {error:?}"));
        let delivery = queue.lease().await.unwrap().expect("it is ready");
        let acked = queue.ack(&delivery.receipt).await.unwrap();
        assert_eq!(acked, LeaseOutcome::Applied);
    }
}

/// A queue that lost its index gets it again by a lease, and by an enqueue.
async fn check_restored(backend: &DocDbBackend) {
    for queue in ["old-lease", "old-enqueue"] {
        let queue = Queue::new(Arc::new(backend.clone()), queue).unwrap();
        if queue.name().as_str() == "old-enqueue" {
            queue.enqueue(&message("b")).await.unwrap();
        }
        let leased = queue.lease_batch(&LeaseOptions::new(9)).await.unwrap();
        let is_old = |delivery: &Delivery| delivery.id.as_str() == "a";
        assert!(leased.iter().any(is_old), "{leased:?}");
        let shop = backend.client().database("shop");
        let documents = shop.collection::<Document>(&format!("queue.{}", queue.name()));
        let names = documents.list_index_names().await.unwrap();
        assert!(names.contains(&INDEX.to_owned()), "{names:?}");
    }
}

async fn make_old_queues(set: &MongoReplicaSet, gate: &Gate) {
    let backend = connect(set, gate).await;
    for queue in ["old-lease", "old-enqueue"] {
        let name = QueueName::new(queue).unwrap();
        backend.enqueue(&name, &[message("a")]).await.unwrap();
        drop_index(set, queue).await;
    }
}

async fn queues_are_made_and_restored_while_a_member_is_down() {
    let ((set, secondary), gate) = (start().await, Gate::new(all_engines()));
    make_old_queues(&set, &gate).await;
    set.kill(secondary).await.unwrap();
    check_first_uses(&connect(&set, &gate).await).await;
    // An instance of its own, which has not timed out yet.
    check_restored(&connect(&set, &gate).await).await;
    set.shut_down().await.unwrap();
}

async fn queues_are_made_and_restored_while_a_member_is_delayed() {
    let ((set, secondary), gate) = (start().await, Gate::new(all_engines()));
    make_old_queues(&set, &gate).await;
    delay(&set, secondary).await;
    check_first_uses(&connect(&set, &gate).await).await;
    check_restored(&connect(&set, &gate).await).await;
    set.shut_down().await.unwrap();
}

/// Delays a member by 40 seconds. It still votes.
async fn delay(set: &MongoReplicaSet, member: Member) {
    let client = Client::with_uri_str(set.uri()).await.unwrap();
    let admin = client.database("admin");
    let reply = admin.run_command(doc! { "replSetGetConfig": 1 }).await;
    let mut config = reply.unwrap().get_document("config").unwrap().clone();
    let version = config.get_i32("version").unwrap();
    config.insert("version", version + 1);
    let uri = set.member_uri(member);
    for each in config.get_array_mut("members").unwrap() {
        let Bson::Document(each) = each else {
            panic!("{each}");
        };
        if uri.contains(each.get_str("host").unwrap()) {
            each.insert("priority", 0);
            each.insert("secondaryDelaySecs", 40);
        }
    }
    assert!(
        config.to_string().contains("\"secondaryDelaySecs\": 40"),
        "{config}"
    );
    admin
        .run_command(doc! { "replSetReconfig": config })
        .await
        .unwrap();
}

async fn an_index_build_that_is_late_is_named() {
    let server = FailingServer::new().await;
    let timeout = Duration::from_millis(4500);
    let case = server.case(0, "createIndexes", timeout).await;
    let messages = [message("a")];
    let enqueued = case.healthy.enqueue(&case.name, &messages).await;
    enqueued.unwrap();
    let documents = case.healthy.client().database("case0");
    let documents = documents.collection::<Document>("queue.mail");
    documents.drop_index(INDEX).await.unwrap();
    let held = doc! {
        "failCommands": ["createIndexes"], "appName": "failing",
        "blockConnection": true, "blockTimeMS": 60_000,
    };
    server
        .fail_point(doc! { "mode": "alwaysOn", "data": held })
        .await;
    let lease = LeaseOptions::new(1);
    let error = case.backend.lease(&case.name, &lease).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    let text = error.to_string();
    for part in [INDEX, "queue.mail", "majority", "4.5s"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    server.clear().await;
    let leased = case.backend.lease(&case.name, &lease).await.unwrap();
    assert_eq!(leased.len(), 1);
    server.gate.verify().unwrap();
    server.mongod.stop().await.unwrap();
}

/// A standalone server refuses a quorum with code 2. An engine that does not know the field says
/// so with another.
async fn a_server_that_knows_no_quorum_builds_without_it() {
    let server = FailingServer::new().await;
    for (number, code) in [2, 9, 72, 40415].into_iter().enumerate() {
        let case = server.case(number, "createIndexes", MINUTE).await;
        let messages = [message("a")];
        case.healthy.enqueue(&case.name, &messages).await.unwrap();
        let documents = case.healthy.client().database(&format!("case{number}"));
        let documents = documents.collection::<Document>("queue.mail");
        documents.drop_index(INDEX).await.unwrap();
        let failure = doc! { "errorCode": code };
        server.fail_once("createIndexes", failure).await;
        let leased = case.backend.lease(&case.name, &LeaseOptions::new(1)).await;
        assert_eq!(leased.unwrap().len(), 1, "{code}");
        assert_eq!(case.sent.load(Ordering::Relaxed), 2, "{code}");
        server.clear().await;
    }
    server.gate.verify().unwrap();
    server.mongod.stop().await.unwrap();
}
