//! Mistakes in the configuration: what is told, and after how long.
//!
//! Each test prints its rows as a table: `--nocapture` shows them.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use mongodb::bson::{Document, doc};
use mongodb_test_server::{MongoReplicaSet, MongoServer, ReplicaSetOptions, ServerOptions};
use queue_api::{Error, ErrorKind, QueueBackend};
use queue_docdb::{DocDbBackend, DocDbBuilder};
use tokio::time::Instant;

use crate::{
    certificates::{Authority, PemFile},
    fixture::{message, name},
};

/// A mistake must not take as long as an outage.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Far less than that, on a busy machine too.
const SOON: Duration = Duration::from_secs(10);

/// A mistake, and what must be told.
struct Row {
    mistake: &'static str,
    builder: DocDbBuilder,
    kind: ErrorKind,
    words: Vec<String>,
}

fn row(mistake: &'static str, builder: DocDbBuilder, words: &[&str]) -> Row {
    Row {
        mistake,
        builder,
        kind: ErrorKind::InvalidInput,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
    }
}

fn denied(mistake: &'static str, builder: DocDbBuilder, words: &[&str]) -> Row {
    Row {
        kind: ErrorKind::Denied,
        ..row(mistake, builder, words)
    }
}

fn builder(uri: impl Into<String>) -> DocDbBuilder {
    DocDbBackend::builder(uri)
        .database("shop")
        .operation_timeout(TIMEOUT)
        .without_change_stream()
}

/// What no error may contain.
fn assert_readable(error: &Error) -> Result<(), String> {
    for text in [
        error.to_string(),
        format!("{error:#}"),
        format!("{error:?}"),
    ] {
        for noise in [
            "RawDocumentBuf",
            "labels: {",
            "Kind: ",
            "whether a write took effect",
        ] {
            if text.contains(noise) {
                return Err(format!("contains {noise:?}: {text}"));
            }
        }
        if text.len() > 700 {
            return Err(format!("has {} bytes: {text}", text.len()));
        }
    }
    Ok(())
}

async fn told(row: Row) -> (String, Result<(), String>) {
    let started = Instant::now();
    let connected = tokio::time::timeout(TIMEOUT * 2, row.builder.connect()).await;
    let took = started.elapsed();
    let check = || {
        let connected = connected.map_err(|_| "hangs".to_owned())?;
        let error = connected.err().ok_or("connects")?;
        let text = error.to_string();
        assert_readable(&error)?;
        if error.kind() != row.kind {
            return Err(format!("{:?}: {text}", error.kind()));
        }
        for word in &row.words {
            if !text.contains(word) {
                return Err(format!("does not say {word:?}: {text}"));
            }
        }
        match took < SOON {
            true => Ok(text),
            false => Err(format!("late: {text}")),
        }
    };
    let (text, outcome) = match check() {
        Ok(text) => (text, Ok(())),
        Err(wrong) => (format!("WRONG: {wrong}"), Err(row.mistake.to_owned())),
    };
    let took = took.as_millis();
    (
        format!("| {} | {text} | {took} ms |\n", row.mistake),
        outcome,
    )
}

/// Tries each row, and prints all of them before it fails.
async fn check(rows: Vec<Row>) {
    let told = futures::future::join_all(rows.into_iter().map(told)).await;
    let mut table = String::new();
    let mut wrong = Vec::new();
    for (line, outcome) in told {
        table.write_str(&line).unwrap();
        wrong.extend(outcome.err());
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong:?}\n{table}");
}

/// `host:port` of a server.
fn address(server: &MongoServer) -> &str {
    let rest = server.uri().trim_start_matches("mongodb://");
    rest.split('/').next().unwrap()
}

async fn admin(server: &MongoServer, command: Document) {
    let client = mongodb::Client::with_uri_str(server.admin_uri())
        .await
        .unwrap();
    let admin = client.database("admin");
    admin.run_command(command).await.unwrap();
}

async fn start(options: ServerOptions) -> MongoServer {
    MongoServer::start_dedicated(options).await.unwrap()
}

fn tls_options(certificate: String) -> ServerOptions {
    ServerOptions::new()
        .with_file("server.pem", certificate, 0o400)
        .with_arguments(["--tlsMode", "preferTLS"])
        .with_arguments(["--tlsCertificateKeyFile", "{server.pem}"])
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_replica_set() {
    let server = MongoServer::shared().await.unwrap();
    let at = address(server);
    let uri = |settings: &str| builder(format!("mongodb://{at}/?{settings}"));
    let authority = Authority::new();
    let ca = PemFile::new("ca", &authority.certificate);
    check(vec![
        row(
            "TLS to a plain server",
            uri("tls=true"),
            &["tls", at, "has no TLS"],
        ),
        row(
            "TLS to a plain server, directly",
            uri("tls=true&directConnection=true"),
            &["tls", at, "has no TLS"],
        ),
        row(
            "a CA file for a plain server",
            uri("").ca_file(&ca.0),
            &["ca_file", at],
        ),
        row(
            "a wrong replicaSet",
            uri("replicaSet=shop"),
            &["replicaSet is shop", "rs0"],
        ),
        row(
            "a wrong replicaSet, directly",
            uri("replicaSet=shop&directConnection=true"),
            &["replicaSet is shop", "rs0"],
        ),
        row(
            "loadBalanced without a load balancer",
            uri("loadBalanced=true"),
            &["loadBalanced"],
        ),
    ])
    .await;
}

/// A server whose certificate has expired since it started.
#[expect(
    clippy::disallowed_methods,
    reason = "certificates expire in real time"
)]
async fn start_expired(authority: &Authority) -> MongoServer {
    // A start takes seconds on a busy machine.
    for life in [10, 30, 60].map(Duration::from_secs) {
        let end = SystemTime::now() + life;
        let certificate = authority.expiring_server(["localhost", "127.0.0.1"], end);
        let started = MongoServer::start_dedicated(tls_options(certificate)).await;
        while SystemTime::now() <= end + Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if let Ok(server) = started {
            return server;
        }
    }
    panic!("no server starts within a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let secured = tls_options(authority.server(["localhost"])).with_access_control();
    let (server, expired) = tokio::join!(start(secured), start_expired(&authority));
    admin(&server, doc! { "setParameter": 1, "tlsMode": "requireTLS" }).await;
    let at = address(&server).replace("127.0.0.1", "localhost");
    let uri = |settings: &str| builder(format!("mongodb://{at}/?{settings}"));
    let by_number = builder(server.uri());
    let expired = builder(expired.uri());
    let ca = PemFile::new("ca", &authority.certificate);
    let wrong = PemFile::new("wrong", &other.certificate);
    let cut = &authority.certificate[..authority.certificate.len() / 2];
    let truncated = PemFile::new("truncated", &format!("{}{cut}", other.certificate));
    let garbled = PemFile::new(
        "garbled",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let full = authority.server(["client"]);
    let (certificate, key) = full.split_at(full.find("-----BEGIN PRIVATE").unwrap());
    let without_key = PemFile::new("without-key", certificate);
    let without_certificate = PemFile::new("without-certificate", key);
    let other_key = other.server(["client"]);
    let other_key = &other_key[other_key.find("-----BEGIN PRIVATE").unwrap()..];
    let mismatch = PemFile::new("mismatch", &format!("{certificate}{other_key}"));
    let client_file = |path: &str| {
        uri(&format!(
            "tls=true&tlsCertificateKeyFile={path}&directConnection=true"
        ))
        .ca_file(&ca.0)
    };
    let direct = || uri("directConnection=true");
    check(vec![
        row("no TLS", uri(""), &["tls=true", &at]),
        row("no TLS, directly", direct(), &["tls=true", &at]),
        row(
            "no TLS, in a set",
            uri("replicaSet=rs0"),
            &["tls=true", &at],
        ),
        row("no CA file", uri("tls=true"), &["ca_file", "unknown", &at]),
        row(
            "another CA file",
            direct().ca_file(&wrong.0),
            &["unknown", wrong.path()],
        ),
        row(
            "a truncated CA file",
            direct().ca_file(&truncated.0),
            &[truncated.path()],
        ),
        row(
            "a damaged CA file",
            direct().ca_file(&garbled.0),
            &[garbled.path()],
        ),
        row(
            "a CA file that is a folder",
            direct().ca_file("/tmp"),
            &["/tmp"],
        ),
        row(
            "another host name",
            by_number.ca_file(&ca.0),
            &["127.0.0.1", "localhost", "not valid for"],
        ),
        row(
            "an expired certificate",
            expired.ca_file(&ca.0),
            &["expired"],
        ),
        row(
            "a missing client key file",
            client_file("/no/such.pem"),
            &["tlsCertificateKeyFile", "/no/such.pem"],
        ),
        row(
            "a client key file without a key",
            client_file(without_key.path()),
            &["tlsCertificateKeyFile", without_key.path(), "key"],
        ),
        row(
            "a client key file without a certificate",
            client_file(without_certificate.path()),
            &[
                "tlsCertificateKeyFile",
                without_certificate.path(),
                "certificate",
            ],
        ),
        row(
            "a client key file with another key",
            client_file(mismatch.path()),
            &["tlsCertificateKeyFile", mismatch.path()],
        ),
    ])
    .await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_users() {
    let server = start(ServerOptions::new().with_access_control()).await;
    let client = mongodb::Client::with_uri_str(server.admin_uri())
        .await
        .unwrap();
    let create = doc! {
        "createUser": "writer", "pwd": "s3cret", "roles": [{ "role": "readWrite", "db": "shop" }],
    };
    client.database("shop").run_command(create).await.unwrap();
    let at = address(&server);
    let uri = |user: &str, rest: &str| {
        let mark = if rest.contains('?') { "&" } else { "?" };
        builder(format!(
            "mongodb://{user}@{at}/{rest}{mark}directConnection=true"
        ))
    };
    check(vec![
        denied(
            "no authSource",
            uri("writer:s3cret", ""),
            &["authSource", "admin"],
        ),
        denied(
            "no authSource, with a database",
            uri("writer:s3cret", "mail"),
            &["authSource", "mail"],
        ),
        denied(
            "a wrong authSource",
            uri("writer:s3cret", "?authSource=mail"),
            &["authSource", "mail"],
        ),
        denied(
            "a wrong password",
            uri("writer:wrong", "?authSource=shop"),
            &["uthentication"],
        ),
        denied(
            "an unknown user",
            uri("nobody:s3cret", "?authSource=shop"),
            &["uthentication"],
        ),
        denied(
            "a mechanism that the server lacks",
            uri("writer:s3cret", "?authMechanism=PLAIN&authSource=$external"),
            &["PLAIN"],
        ),
        row(
            "an unknown mechanism",
            uri("writer:s3cret", "?authMechanism=FOO"),
            &["FOO"],
        ),
        row("no user", builder(format!("mongodb://@{at}")), &["user"]),
        row(
            "X.509 with a password",
            uri("writer:s3cret", "?authMechanism=MONGODB-X509"),
            &["password", "X509"],
        ),
        row(
            "OIDC with a password",
            uri("writer:s3cret", "?authMechanism=MONGODB-OIDC"),
            &["MONGODB-OIDC"],
        ),
        row(
            "a password with a /",
            uri("writer:s3/cret", ""),
            &["percent-encoded"],
        ),
        row(
            "a database with an @",
            builder(format!("mongodb://{at}/sh@op")),
            &["database", "@"],
        ),
    ])
    .await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_deployment() {
    let authority = Authority::new();
    let options = tls_options(authority.server(["localhost", "127.0.0.1"]))
        .with_file("ca.pem", authority.certificate.clone(), 0o400)
        .with_arguments(["--tlsCAFile", "{ca.pem}"])
        .as_standalone();
    let new_set = ServerOptions::new().without_initiation();
    let (standalone, uninitiated) = tokio::join!(start(options), start(new_set));
    let alone = address(&standalone);
    let twice = format!("{alone},{}", alone.replace("127.0.0.1", "localhost"));
    let uri = |hosts: &str, settings: &str| builder(format!("mongodb://{hosts}/?{settings}"));
    let new = address(&uninitiated);
    let ca = PemFile::new("ca", &authority.certificate);
    check(vec![
        row(
            "a replicaSet of a standalone",
            uri(alone, "replicaSet=rs0"),
            &["replicaSet is rs0", "standalone"],
        ),
        row(
            "a replicaSet of a standalone, directly",
            uri(alone, "replicaSet=rs0&directConnection=true"),
            &["replicaSet is rs0", "standalone"],
        ),
        row(
            "two hosts of a standalone",
            uri(&twice, ""),
            &["standalone", "one host"],
        ),
        row(
            "a standalone and a set",
            uri(&format!("{alone},{new}"), "replicaSet=rs0"),
            &["standalone", "initiated"],
        ),
        row(
            "no client certificate",
            uri(alone, "tls=true").ca_file(&ca.0),
            &["tlsCertificateKeyFile"],
        ),
        row("a set that nobody initiated", uri(new, ""), &["initiated"]),
        row(
            "the same by its name",
            uri(new, "replicaSet=rs0"),
            &["initiated"],
        ),
        row(
            "the same, directly",
            builder(uninitiated.uri()),
            &["initiated"],
        ),
        row(
            "the same by another name",
            uri(new, "replicaSet=shop"),
            &["initiated"],
        ),
    ])
    .await;
    let backend = builder(standalone.uri()).connect().await.unwrap();
    assert_needs_a_set(&backend).await;

    admin(
        &standalone,
        doc! { "setParameter": 1, "requireApiVersion": true },
    )
    .await;
    let uri = format!("{}&serverSelectionTimeoutMS=500", standalone.uri());
    let own_client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let own = DocDbBackend::from_database(own_client.database("shop"));
    check(vec![
        row(
            "a required API version",
            builder(standalone.uri()),
            &["API version"],
        ),
        row("the same with an own client", own, &["API version"]),
    ])
    .await;
}

async fn assert_needs_a_set(backend: &DocDbBackend) {
    let mut session = backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let mut queues = backend.in_transaction(&mut session);
    let error = queues.enqueue(&name(), &[message("a")]).await.unwrap_err();
    assert_readable(&error).unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:#}");
    let text = error.to_string();
    assert!(text.contains("replica set"), "{text}");
    assert!(!text.contains("retryWrites"), "{text}");
    println!("| a transaction on a standalone | {text} | |");
    backend.stats(&name()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_direct_connection() {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new())
        .await
        .unwrap();
    let primary = set.settled().await.unwrap();
    let secondary = set.members().into_iter().find(|each| *each != primary);
    let secondary = set.member_uri(secondary.unwrap());
    let reader = "mongodb://shop.cluster-ro-x.eu-west-1.docdb.amazonaws.com/?directConnection=true";
    let client = mongodb::Client::with_uri_str(&secondary).await.unwrap();
    let own = DocDbBackend::from_database(client.database("shop"));
    let direct = &["directConnection", "secondary"];
    check(vec![
        row("a secondary", builder(&secondary), direct),
        row(
            "a secondary, by name",
            builder(format!("{secondary}&replicaSet=rs0")),
            direct,
        ),
        row("a secondary, with an own client", own, direct),
        row(
            "a reader endpoint",
            builder(reader),
            &["cluster-ro", "cluster endpoint"],
        ),
    ])
    .await;
    let primary = builder(set.member_uri(primary)).connect().await;
    primary.unwrap();
    builder(set.uri()).connect().await.unwrap();
    set.shut_down().await.unwrap();
}
