//! Mistakes in the configuration: what is told, and after how long.
//!
//! Each test prints its rows as a table: `--nocapture` shows them.

use std::{fmt::Write as _, time::Duration};

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
mod tls;
mod users;

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let files = [deployment::tests(), tls::tests(), users::tests()];
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

async fn told(row: Row) -> (String, Result<(), String>) {
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
