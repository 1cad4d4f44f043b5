//! What tests may expect of a server.

use std::thread;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb_test_server::{MongoServer, Source};
use testcontainers::core::client::docker_client_instance;

async fn client(server: &MongoServer) -> Client {
    Client::with_uri_str(server.uri()).await.unwrap()
}

#[tokio::test]
async fn is_a_writable_replica_set() {
    let server = MongoServer::shared().await.unwrap();
    let database = server.scratch_database();
    let client = client(server).await;
    let hello = client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await;
    let hello = hello.unwrap();
    assert_eq!(hello.get_bool("isWritablePrimary"), Ok(true));
    assert!(hello.contains_key("setName"), "{hello}");

    let notes = client
        .database(database.name())
        .collection::<Document>("notes");
    notes.insert_one(doc! { "_id": 1 }).await.unwrap();
    // Only a replica set has transactions.
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let note = doc! { "_id": 2 };
    notes.insert_one(note).session(&mut session).await.unwrap();
    session.abort_transaction().await.unwrap();
    assert_eq!(notes.count_documents(doc! {}).await.unwrap(), 1);
}

#[tokio::test]
async fn has_fail_points() {
    let server = MongoServer::start_dedicated(Default::default())
        .await
        .unwrap();
    let admin = client(&server).await.database("admin");
    let fail_once = doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": { "failCommands": ["ping"], "errorCode": 2 },
    };
    admin.run_command(fail_once).await.unwrap();
    admin.run_command(doc! { "ping": 1 }).await.unwrap_err();
    admin.run_command(doc! { "ping": 1 }).await.unwrap();
}

#[tokio::test]
async fn listens_on_loopback_only() {
    let server = MongoServer::start_dedicated(Default::default())
        .await
        .unwrap();
    assert!(
        server.uri().starts_with("mongodb://127.0.0.1:"),
        "{server:?}"
    );
    if let Source::Container { name, .. } = server.source() {
        let docker = docker_client_instance().await.unwrap();
        let container = docker.inspect_container(name, None).await.unwrap();
        let ports = container.network_settings.unwrap().ports.unwrap();
        let bindings: Vec<_> = ports.into_values().flatten().flatten().collect();
        assert!(!bindings.is_empty());
        for binding in bindings {
            assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
        }
        return;
    }
    let admin = client(&server).await.database("admin");
    let options = admin
        .run_command(doc! { "getCmdLineOpts": 1 })
        .await
        .unwrap();
    let parsed = options.get_document("parsed").unwrap();
    let net = parsed.get_document("net").unwrap();
    assert_eq!(net.get_str("bindIp"), Ok("127.0.0.1"));
}

#[test]
fn is_shared_by_all_runtimes_of_a_process() {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(MongoServer::shared()).unwrap();
        std::ptr::from_ref(server) as usize
    };
    let threads: Vec<_> = (0..8).map(|_| thread::spawn(ask)).collect();
    let addresses: Vec<_> = threads.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(
        addresses.iter().all(|it| *it == addresses[0]),
        "{addresses:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn starts_while_the_clock_of_the_test_is_paused() {
    let server = MongoServer::start_dedicated(Default::default())
        .await
        .unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn databases_have_names_of_their_own_and_can_be_dropped() {
    let server = MongoServer::shared().await.unwrap();
    let (one, other) = (server.fresh_database_name(), server.fresh_database_name());
    assert_ne!(one, other);
    assert!(one.len() <= 38, "{one}");

    let scratch = server.scratch_database();
    let client = client(server).await;
    for name in [one.as_str(), scratch.name()] {
        let notes = client.database(name).collection::<Document>("notes");
        notes.insert_one(doc! {}).await.unwrap();
    }
    let scratch_name = scratch.name().to_owned();
    let names = client.list_database_names().await.unwrap();
    assert!(
        names.contains(&one) && names.contains(&scratch_name),
        "{names:?}"
    );

    server.drop_database(&one).await.unwrap();
    drop(scratch);
    let names = client.list_database_names().await.unwrap();
    assert!(
        !names.contains(&one) && !names.contains(&scratch_name),
        "{names:?}"
    );
    // Not there, so nothing to do.
    server.drop_database(&one).await.unwrap();
}
