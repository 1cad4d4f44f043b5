//! Connecting: settings, errors, TLS, credentials and permissions.

use std::{path::PathBuf, time::Duration};

use mongodb::bson::doc;
use mongodb_test_server::{MongoServer, ServerOptions, documentdb::Gate};
use queue_api::{Error, ErrorKind, NewMessage};
use queue_docdb::{DocDbBackend, DocDbBuilder};

use crate::{
    certificates::{Authority, PemFile},
    fixture::{self, all_engines, applied, queue_of},
};

tests! {
    on_one_thread:
        invalid_settings_are_refused_before_anything_is_sent,
        an_invalid_uri_is_explained_without_its_password,
        no_part_of_a_password_is_told,
        the_uri_may_name_the_database,
        the_application_may_have_its_own_client,
        tls_credentials_and_permissions
}

/// The timeout of a connection that fails.
const SHORT: Duration = Duration::from_millis(1500);
/// The timeout of a connection that succeeds.
const LONG: Duration = Duration::from_secs(30);

fn builder(uri: &str) -> DocDbBuilder {
    DocDbBackend::builder(uri)
        .database("shop")
        .operation_timeout(SHORT)
}

async fn refused(builder: DocDbBuilder) -> Error {
    let error = builder.connect().await.expect_err("it cannot connect");
    assert_eq!(error.operation(), "connect");
    error
}

async fn invalid_settings_are_refused_before_anything_is_sent() {
    let uri = "mongodb://localhost";
    let missing = PathBuf::from("/nonexistent/bundle.pem");
    let (empty, large) = (PemFile::new("empty", ""), PemFile::new("large", ""));
    let file = std::fs::File::create(&large.0).unwrap();
    file.set_len((16 << 20) + 1).unwrap();
    for (builder, hint) in [
        (DocDbBackend::builder("localhost"), "URI"),
        (DocDbBackend::builder(uri), "names a database"),
        (builder(uri).database("no/slash"), "database name"),
        (builder(uri).database("a.b"), "database name"),
        (builder(uri).database("a b"), "database name"),
        (builder(uri).database("a$"), "database name"),
        (
            builder(uri)
                .database("shop")
                .collection_prefix("x".repeat(115)),
            "115 bytes; it may have at most 114",
        ),
        (builder(uri).collection_prefix("system."), "prefix"),
        (builder(uri).collection_prefix("a.system."), "prefix"),
        (builder(uri).collection_prefix(".a"), "prefix"),
        (builder(uri).collection_prefix("a$"), "prefix"),
        (builder(uri).collection_prefix("a b"), "prefix"),
        (builder(uri).collection_prefix("-a"), "prefix"),
        (builder(uri).collection_prefix("ä"), "prefix"),
        (builder(uri).database("local"), "database name"),
        (builder(uri).database("config"), "database name"),
        (builder(uri).database("Admin"), "database name"),
        (
            DocDbBackend::builder("mongodb://localhost/admin"),
            "database name",
        ),
        (
            builder(uri).operation_timeout(Duration::ZERO),
            "operation_timeout is 0ns; it must be at least 1 ms",
        ),
        (builder(uri).max_pool_size(0), "must be at least 1"),
        (
            builder(uri).entry_size(0),
            "entry_size is 0; it must be 1 to 64",
        ),
        (builder(uri).entry_size(65), "must be 1 to 64"),
        (builder(uri).application_name("x".repeat(129)), "129 bytes"),
        (
            builder("mongodb://shop.x.eu-west-1.docdb.amazonaws.com/?replicaSet=rs1"),
            "must be rs0",
        ),
        (
            builder("mongodb://ada:pw@x.docdb.amazonaws.com/?authMechanism=SCRAM-SHA-256"),
            "must be SCRAM-SHA-1",
        ),
        (
            builder("mongodb://localhost/?authMechanism=MONGODB-AWS"),
            "aws-auth",
        ),
        (builder(uri).ca_file(&missing), "/nonexistent/bundle.pem"),
        (
            builder("mongodb://localhost/?tls=false").ca_file(&missing),
            "TLS off",
        ),
        (
            builder(uri).ca_file("/dev/null"),
            "the CA file /dev/null is not a regular file",
        ),
        (
            builder("mongodb://localhost/?tls=true&tlsCertificateKeyFile=/dev/null"),
            "tlsCertificateKeyFile is not a regular file",
        ),
        (builder(uri).ca_file(&empty.0), "PEM"),
        (
            builder(uri).ca_file(&large.0),
            "has 16777217 bytes; it may have at most 16777216",
        ),
        (
            builder("mongodb://localhost/?tls=true&tlsCAFile=/nonexistent/bundle.pem"),
            "/nonexistent/bundle.pem",
        ),
    ] {
        let error = refused(builder).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

async fn an_invalid_uri_is_explained_without_its_password() {
    for (uri, hint) in [
        ("mongodb://user:12?s3cret@localhost/", "%3F"),
        ("mongodb://user:12/?s3cret@localhost/", "%3F"),
        ("mongodb://user:.sock?s3cret@localhost/", "%3F"),
        ("mongodb://user:12?s3cret@localhost/?tls=true", "%3F"),
        ("mongodb://localhost:1/?tls=some@times", "%3F"),
        ("", "scheme"),
        ("localhost:27017", "scheme"),
        ("http://user:s3cret@localhost", "scheme"),
        ("mongodb://user:s3cret@localhost:port", "port"),
        // The host is missing.
        ("mongodb://user:s3cret", "port"),
        ("mongodb://user:s3cret/shop?tls=true", "port"),
        (
            "mongodb://user:s3cret@localhost/?retryWrites=perhaps",
            "retryWrites",
        ),
        (
            "mongodb://user:s3cret@localhost/?authMechanism=MONGODB-X509",
            "MONGODB-X509",
        ),
        (
            "mongodb://user:s3cret@localhost/?authMechanism=MONGODB-OIDC",
            "MONGODB-OIDC",
        ),
        (
            "mongodb://user:s3cret@localhost/?authMechanism=GSSAPI",
            "GSSAPI",
        ),
        ("mongodb://user@localhost/?authMechanism=PLAIN", "PLAIN"),
        ("mongodb://user:s3cret@localhost/?authSource=", "authSource"),
        (
            "mongodb://user:s3cret@localhost/?directConnection=true&loadBalanced=true",
            "loadBalanced",
        ),
        (
            "mongodb://user:s3cret@localhost,other/?directConnection=true",
            "directConnection",
        ),
        ("mongodb://user:s3cret@localhost/?tls=true&ssl=false", "tls"),
        ("mongodb://localhost/?maxPoolSize=me@work", "%40"),
        ("mongodb://user:s3cret@localhost/?appName=me@work", "%40"),
        ("mongodb://user:s3cret@localhost/sh@op", "database"),
        ("mongodb://localhost/sh@op", "database"),
        ("mongodb://user:s3/cret@localhost", "percent-encoded"),
        ("mongodb://user:s3@cret@localhost", "percent-encoded"),
        ("mongodb://user:s3:cret@localhost", "percent-encoded"),
        ("mongodb://user:s3%cret@localhost", "percent-encoded"),
        ("mongodb://user:s3%2@localhost", "percent-encoded"),
        ("mongodb://user:s3?cret=@localhost", "%3F"),
        ("user:s3://cret@localhost", "scheme"),
    ] {
        let error = refused(builder(uri)).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}");
        let text = format!("{error} {error:?}");
        let is_hint = text.to_lowercase().contains(&hint.to_lowercase());
        assert!(is_hint, "{uri}: {text}");
        let is_blamed = text.contains("percent-encoded") || hint == "database";
        let may_be_blamed = ["percent-encoded", "database"].contains(&hint);
        assert_eq!(is_blamed, may_be_blamed, "{uri}: {text}");
        assert!(
            !text.contains("s3") && !text.contains("cret"),
            "{uri}: {text}"
        );
        assert!(!text.contains("labels"), "{uri}: {text}");
    }
}

/// Every reserved character in the user's name and in the password, beside digits, which may be a
/// port, and beside letters.
async fn no_part_of_a_password_is_told() {
    const BEFORE: [&str; 2] = ["7531", "qzqz"];
    const AFTER: [&str; 3] = ["9642", "xkxk", "xkxk=9642"];
    // The driver would panic at the last two.
    let reserved = [":", "/", "?", "#", "[", "]", "@", "%", "%é", "%aé"];
    let mut users = vec!["ada".to_owned()];
    let mut passwords = BEFORE.map(str::to_owned).to_vec();
    for each in reserved {
        users.extend([format!("a{each}b"), format!("1{each}2")]);
        for before in BEFORE {
            passwords.extend(AFTER.map(|after| format!("{before}{each}{after}")));
        }
    }
    let mut tried = 0;
    for (user, password) in users
        .iter()
        .flat_map(|user| passwords.iter().map(move |password| (user, password)))
    {
        if user == "ada" && BEFORE.contains(&password.as_str()) {
            continue;
        }
        for rest in ["localhost", "localhost/shop?tls=true", "localhost?tls=no"] {
            let uri = format!("mongodb://{user}:{password}@{rest}");
            let error = refused(builder(&uri)).await;
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}: {error}");
            let mut texts = vec![format!("{error:#} {error:#?}")];
            let mut next: Option<&dyn std::error::Error> = Some(&error);
            while let Some(cause) = next {
                texts.push(format!("{cause} {cause:?}"));
                next = cause.source();
            }
            let text = texts.concat();
            for part in BEFORE.into_iter().chain(["9642", "xkxk"]) {
                assert!(!text.contains(part), "{uri}: {text}");
            }
            tried += 1;
        }
    }
    assert!(tried > 2000, "{tried}");
}

async fn the_uri_may_name_the_database() {
    let server = MongoServer::shared().await.unwrap();
    let database = server.scratch_database();
    let uri = server
        .uri()
        .replace("/?", &format!("/{}?", database.name()));
    let gate = Gate::new(all_engines());
    let connected = fixture::builder(&uri, &gate).connect().await;
    let backend = connected.unwrap();
    assert!(format!("{backend:?}").contains(database.name()));
}

/// An application's client, with settings that the backend must override.
async fn application(server: &MongoServer, gate: &Gate) -> mongodb::Client {
    let uri = format!("{}&readPreference=secondaryPreferred&w=1", server.uri());
    let mut options = mongodb::options::ClientOptions::parse(uri).await.unwrap();
    options.retry_writes = Some(false);
    options.command_event_handler = Some(gate.watch());
    mongodb::Client::with_options(options).unwrap()
}

async fn the_application_may_have_its_own_client() {
    let server = MongoServer::shared().await.unwrap();
    let (database, gate) = (server.scratch_database(), Gate::new(all_engines()));
    let client = application(server, &gate).await;
    let of_client = || DocDbBackend::from_database(client.database(database.name()));
    let backend = of_client().connect().await.unwrap();
    let queue = queue_of(&backend);
    queue.enqueue(&NewMessage::new("a")).await.unwrap();
    let delivery = queue.lease().await.unwrap().expect("ready");
    applied(queue.ack(&delivery.receipt)).await;
    assert!(
        gate.commands().contains("delete"),
        "the application's connections are used"
    );

    for (builder, hint) in [
        (of_client().database("other"), "database"),
        (of_client().ca_file("/bundle.pem"), "ca_file"),
        (of_client().application_name("mail"), "application_name"),
        (of_client().max_pool_size(5), "max_pool_size"),
        (
            of_client().command_event_handler(gate.watch()),
            "command_event_handler",
        ),
    ] {
        let error = refused(builder).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains(hint), "{error}");
    }
    for servers in ["local", "config", "admin"] {
        let error = refused(DocDbBackend::from_database(client.database(servers))).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains(servers), "{error}");
    }
    let mut options = mongodb::options::DatabaseOptions::default();
    options.read_concern = Some(mongodb::options::ReadConcern::linearizable());
    let linearizable = client.database_with_options(database.name(), options);
    let error = refused(DocDbBackend::from_database(linearizable)).await;
    assert!(error.to_string().contains("read concern"), "{error}");
}

/// A server with TLS and access control, and the users `writer` and `reader`.
async fn secured_server(authority: &Authority) -> MongoServer {
    let options = ServerOptions::new()
        .with_file(
            "server.pem",
            authority.server(["127.0.0.1", "localhost"]),
            0o400,
        )
        .with_arguments([
            "--tlsMode",
            "preferTLS",
            "--tlsCertificateKeyFile",
            "{server.pem}",
        ])
        .with_access_control();
    let server = MongoServer::start_dedicated(options).await.unwrap();
    let admin = mongodb::Client::with_uri_str(server.admin_uri())
        .await
        .unwrap();
    for (user, role) in [("writer", "readWrite"), ("reader", "read")] {
        let create = doc! {
            "createUser": user, "pwd": "s3cret", "roles": [{ "role": role, "db": "shop" }],
        };
        admin.database("shop").run_command(create).await.unwrap();
    }
    server
}

/// One test, because it needs one server with TLS and access control.
async fn tls_credentials_and_permissions() {
    let authority = Authority::new();
    let server = secured_server(&authority).await;
    let right = PemFile::new("right", &authority.certificate);
    let gate = Gate::new(all_engines());
    let as_user = |user: &str, password: &str| {
        let uri = server
            .uri()
            .replace("://", &format!("://{user}:{password}@"));
        fixture::builder(&format!("{uri}&authSource=shop"), &gate)
            .database("shop")
            .operation_timeout(LONG)
    };

    let backend = as_user("writer", "s3cret")
        .ca_file(&right.0)
        .connect()
        .await
        .unwrap();
    let queue = queue_of(&backend);
    queue.enqueue(&NewMessage::new("a")).await.unwrap();

    let backend = as_user("reader", "s3cret")
        .ca_file(&right.0)
        .connect()
        .await
        .unwrap();
    let reader = queue_of(&backend);
    assert_eq!(reader.stats().await.unwrap().ready, 1);
    let denied = [
        reader.enqueue(&NewMessage::new("new")).await.unwrap_err(),
        reader.lease().await.unwrap_err(),
    ];
    for error in denied {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    }
    // A client without credentials can connect, and do nothing else.
    let anonymous = fixture::builder(server.uri(), &gate)
        .database("shop")
        .connect()
        .await
        .unwrap();
    let error = queue_of(&anonymous).stats().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    server.stop().await.unwrap();
}
