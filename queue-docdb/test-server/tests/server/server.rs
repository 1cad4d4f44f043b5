//! What a test may expect of a server.

use std::thread;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb_test_server::{MongoServer, ServerOptions, Source};
use testcontainers::core::client::docker_client_instance;

async fn client(server: &MongoServer) -> Client {
    Client::with_uri_str(server.uri()).await.unwrap()
}

#[tokio::test]
async fn is_a_replica_set_with_databases_for_tests() {
    let server = MongoServer::shared().await.unwrap();
    let client = client(server).await;
    let database = server.scratch_database();
    let name = database.name().to_owned();
    let other = server.fresh_database_name();
    assert!(other != name && other.len() <= 38, "{other}");

    let notes = client.database(&name).collection::<Document>("notes");
    notes.insert_one(doc! { "_id": 1 }).await.unwrap();
    // Only a replica set has transactions.
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let note = doc! { "_id": 2 };
    notes.insert_one(note).session(&mut session).await.unwrap();
    session.abort_transaction().await.unwrap();
    assert_eq!(notes.count_documents(doc! {}).await.unwrap(), 1);

    let others = client.database(&other).collection::<Document>("notes");
    others.insert_one(doc! {}).await.unwrap();
    drop(database);
    server.drop_database(&other).await.unwrap();
    let names = client.list_database_names().await.unwrap();
    assert!(
        !names.contains(&name) && !names.contains(&other),
        "{names:?}"
    );
    // Does not exist, which is no error.
    server.drop_database(&other).await.unwrap();
}

#[tokio::test]
async fn may_be_a_standalone_or_a_set_that_is_not_initiated() {
    let hello = async |options: ServerOptions| {
        let server = MongoServer::start_dedicated(options).await.unwrap();
        let admin = client(&server).await.database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await.unwrap();
        server.stop().await.unwrap();
        hello
    };
    let standalone = hello(ServerOptions::new().as_standalone()).await;
    assert_eq!(standalone.get_bool("isWritablePrimary"), Ok(true));
    assert!(!standalone.contains_key("setName"), "{standalone}");
    let uninitiated = hello(ServerOptions::new().without_initiation()).await;
    assert_eq!(uninitiated.get_bool("isreplicaset"), Ok(true));
    assert_eq!(uninitiated.get_bool("isWritablePrimary"), Ok(false));
}

#[tokio::test]
async fn listens_on_loopback_only() {
    let server = MongoServer::start_dedicated(ServerOptions::new());
    let server = server.await.unwrap();
    assert!(server.uri().starts_with("mongodb://127.0.0.1:"));
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
    let options = admin.run_command(doc! { "getCmdLineOpts": 1 });
    let options = options.await.unwrap();
    let net = options.get_document("parsed").unwrap().get_document("net");
    assert_eq!(net.unwrap().get_str("bindIp"), Ok("127.0.0.1"));
}

#[test]
fn is_shared_by_all_runtimes_of_a_process() {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let server = runtime.block_on(MongoServer::shared()).unwrap();
        std::ptr::from_ref(server) as usize
    };
    let threads: Vec<_> = (0..8).map(|_| thread::spawn(ask)).collect();
    let addresses: Vec<_> = threads.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(addresses.iter().all(|it| *it == addresses[0]));
}

#[tokio::test(start_paused = true)]
async fn starts_with_a_paused_clock() {
    let server = MongoServer::start_dedicated(ServerOptions::new());
    server.await.unwrap().stop().await.unwrap();
}

#[test]
#[should_panic(expected = "must be a plain file name")]
fn has_no_files_outside_of_its_folder() {
    let _ = ServerOptions::new().with_file("../key", "", 0o400);
}
