//! Mistakes in the configuration: what is told, and after how long.
//!
//! Each test prints its rows as a table: `--nocapture` shows them.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use mongodb::bson::{Document, doc};
use mongodb_test_server::{MongoReplicaSet, MongoServer, ReplicaSetOptions, ServerOptions, Source};
use queue_api::{Error, ErrorKind, QueueBackend};
use queue_docdb::{DocDbBackend, DocDbBuilder};
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
