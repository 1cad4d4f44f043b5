//! Mistakes in the configuration: what is told, and that it is told soon.
//!
//! Each test prints its rows of the table of `docs/mistakes.md`, and compares the two.

use std::{error::Error as _, net::IpAddr, time::Duration};

use mongodb::bson::{Document, doc};
use mongodb_test_server::{MongoReplicaSet, MongoServer, ReplicaSetOptions, ServerOptions, Source};
use queue_api::{Error, ErrorKind, QueueBackend};
use queue_docdb::{DocDbBackend, DocDbBuilder, driver_error};
use tokio::time::Instant;

use crate::{
    certificates::{Authority, PemFile},
    fixture::{message, name},
};

mod deployment;
mod down;
mod tls;
mod users;

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let files = [
        deployment::tests(),
        down::tests(),
        tls::tests(),
        users::tests(),
    ];
    files.into_iter().flatten().collect()
}

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
    /// Whether the driver's error can be had.
    has_cause: bool,
}

/// A mistake with a driver's error.
fn caused(mistake: &'static str, builder: DocDbBuilder, words: &[&str]) -> Row {
    Row {
        has_cause: true,
        ..row(mistake, builder, words)
    }
}

fn row(mistake: &'static str, builder: DocDbBuilder, words: &[&str]) -> Row {
    Row {
        mistake,
        builder,
        kind: ErrorKind::InvalidInput,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        has_cause: false,
    }
}

fn denied(mistake: &'static str, builder: DocDbBuilder, words: &[&str]) -> Row {
    Row {
        kind: ErrorKind::Denied,
        ..caused(mistake, builder, words)
    }
}

fn builder(uri: impl Into<String>) -> DocDbBuilder {
    DocDbBackend::builder(uri)
        .database("shop")
        .operation_timeout(TIMEOUT)
        .without_change_stream()
}

/// What no error may contain.
pub(crate) fn assert_readable(error: &Error) -> Result<(), String> {
    const DOUBT: &str = "whether a write took effect";
    if error.operation() == "connect" && error.to_string().contains(DOUBT) {
        return Err(format!("speaks of writes: {error}"));
    }
    for text in [
        error.to_string(),
        format!("{error:#}"),
        format!("{error:?}"),
    ] {
        for noise in ["RawDocumentBuf", "labels: {", "Kind: ", "Topology"] {
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

async fn told(row: Row) -> Result<String, String> {
    let started = Instant::now();
    let connected = tokio::time::timeout(TIMEOUT * 2, row.builder.connect()).await;
    let took = started.elapsed();
    let check = || {
        let connected = connected.map_err(|_| "hangs".to_owned())?;
        let error = connected.err().ok_or("connects")?;
        let text = error.to_string();
        assert_readable(&error)?;
        if row.has_cause && driver_error(&error).is_none() {
            return Err(format!("has no cause: {text}"));
        }
        if error.kind() != row.kind {
            return Err(format!("{:?}: {text}", error.kind()));
        }
        for word in &row.words {
            if !text.contains(word) {
                return Err(format!("does not say {word:?}: {text}"));
            }
        }
        match took < SOON {
            true => Ok(normalised(&error)),
            false => Err(format!("late: {text}")),
        }
    };
    match check() {
        Ok(text) => Ok(format!("| {} | {text} |\n", row.mistake)),
        Err(wrong) => Err(format!("{}: {wrong}\n", row.mistake)),
    }
}

/// The text of an error without what differs between runs, servers and drivers: addresses, the folders
/// of files, and the words of the cause.
fn normalised(error: &Error) -> String {
    let text = error.to_string();
    let mut text = text.trim_start_matches("connect: ").to_owned();
    if let Some(cause) = error.source() {
        text = text.replace(&cause.to_string(), "…");
    }
    let words = text.split(' ').map(|word| {
        let name = word.trim_matches([',', ';', ':']);
        let (host, port) = name.rsplit_once(':').unwrap_or_default();
        let is_host = host == "localhost" || host.parse::<IpAddr>().is_ok();
        let file = name.rsplit_once("/queue-docdb-").map(|(_, file)| file);
        match file.and_then(|file| file.splitn(3, '-').nth(2)) {
            Some(file) => word.replace(name, file),
            None if is_host && port.parse::<u16>().is_ok() => word.replace(name, "db:27017"),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether the page has the line. Of several mistakes, the order depends on the ports.
fn is_in_the_page(line: &str) -> bool {
    let sorted = |line: &str| {
        let (mistake, texts) = line.trim_matches(['|', ' ', '\n']).split_once(" | ")?;
        let mut texts: Vec<_> = texts.split("; ").map(str::to_owned).collect();
        texts.sort();
        Some((mistake.to_owned(), texts))
    };
    let mut lines = include_str!("../../docs/mistakes.md").lines();
    lines.any(|other| sorted(other) == sorted(line))
}

/// Tries each row, and prints all of them before it fails.
async fn check(rows: Vec<Row>) {
    let mut wrong = String::new();
    for line in futures::future::join_all(rows.into_iter().map(told)).await {
        match line {
            Ok(line) => {
                print!("{line}");
                if !is_in_the_page(&line) {
                    wrong += &format!("docs/mistakes.md does not have: {line}");
                }
            }
            Err(line) => wrong += &line,
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
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
