//! Servers with arguments, files and access control.

use std::fs;

use mongodb::Client;
use mongodb::bson::doc;
use mongodb::options::{ClientOptions, Credential, Tls, TlsOptions};
use mongodb_test_server::{MongoServer, ServerOptions};

#[tokio::test]
async fn access_control_lets_in_known_users_only() {
    let options = ServerOptions::new().with_access_control();
    let server = MongoServer::start_dedicated(options).await.unwrap();

    let stranger = Client::with_uri_str(server.uri()).await.unwrap();
    let refused = stranger.list_database_names().await.unwrap_err();
    assert!(refused.to_string().contains("authentication"), "{refused}");

    let admin = Client::with_uri_str(server.admin_uri()).await.unwrap();
    let create_user = doc! { "createUser": "worker", "pwd": "secret", "roles": ["root"] };
    admin
        .database("admin")
        .run_command(create_user)
        .await
        .unwrap();

    let mut options = ClientOptions::parse(server.uri()).await.unwrap();
    let mut credential = Credential::default();
    credential.username = Some("worker".to_owned());
    credential.password = Some("secret".to_owned());
    options.credential = Some(credential);
    let worker = Client::with_options(options).unwrap();
    worker.list_database_names().await.unwrap();

    let database = server.scratch_database();
    let notes = worker.database(database.name()).collection("notes");
    notes.insert_one(doc! {}).await.unwrap();
    let name = database.name().to_owned();
    drop(database);
    let names = worker.list_database_names().await.unwrap();
    assert!(!names.contains(&name), "{names:?}");
}

#[tokio::test]
async fn tls_with_a_certificate_beside_the_server() {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let issued = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = issued.cert.pem();
    let key = issued.signing_key.serialize_pem();
    let options = ServerOptions::new()
        .with_file("server.pem", format!("{key}{certificate}"), 0o400)
        .with_arguments(["--tlsMode", "preferTLS"])
        .with_arguments(["--tlsCertificateKeyFile", "{server.pem}"])
        .with_access_control();
    let server = MongoServer::start_dedicated(options).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    fs::write(&ca_file, certificate).unwrap();
    let mut options = ClientOptions::parse(server.admin_uri()).await.unwrap();
    let tls = TlsOptions::builder().ca_file_path(ca_file).build();
    options.tls = Some(Tls::Enabled(tls));
    let client = Client::with_options(options).unwrap();
    let admin = client.database("admin");
    let status = admin.run_command(doc! { "serverStatus": 1 });
    let status = status.await.unwrap();
    assert!(status.contains_key("transportSecurity"), "{status}");
}

#[tokio::test]
async fn data_may_be_on_disk() {
    let options = ServerOptions::new().with_data_on_disk();
    let server = MongoServer::start_dedicated(options).await.unwrap();
    let client = Client::with_uri_str(server.uri()).await.unwrap();
    let database = client.database(&server.fresh_database_name());
    database
        .collection("notes")
        .insert_one(doc! {})
        .await
        .unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_argument_is_told_in_the_words_of_mongod() {
    let options = ServerOptions::new().with_arguments(["--noSuchOption"]);
    let error = MongoServer::start_dedicated(options).await.unwrap_err();
    let text = error.to_string();
    for part in [
        "1. ",
        "2. ",
        "3. ",
        "4. ",
        "unrecognised option '--noSuchOption'",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
#[should_panic(expected = "plain file name")]
fn a_file_outside_of_its_folder_is_refused() {
    let _ = ServerOptions::new().with_file("../key", "", 0o400);
}
