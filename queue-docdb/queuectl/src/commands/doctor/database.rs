//! The pool and the change stream of a connection that works.

use std::time::Duration;

use queue_docdb::mongodb::{
    Database,
    bson::{Bson, Document, doc},
    options::ClientOptions,
};
use tokio::time::timeout;

use super::{check::Check, probe::error_text};

const POOL: &str = "pool";
const CHANGE_STREAM: &str = "change stream";

/// Of queue-docdb and the driver.
const DEFAULT_POOL: u32 = 10;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn pool(options: &ClientOptions, database: &Database) -> Check {
    let most = options.max_pool_size.unwrap_or(DEFAULT_POOL);
    let status = doc! {
        "serverStatus": 1, "repl": 0, "metrics": 0, "locks": 0, "wiredTiger": 0, "tcmalloc": 0,
    };
    let own = format!("a program has up to {most} connections to each server");
    let admin = database.client().database("admin");
    let server = match admin.run_command(status).await {
        Ok(status) => status
            .get_document("connections")
            .cloned()
            .unwrap_or_default(),
        Err(_) => Document::new(),
    };
    let number = |field: &str| match server.get(field) {
        Some(Bson::Int32(number)) => Some(i64::from(*number)),
        Some(Bson::Int64(number)) => Some(*number),
        Some(Bson::Double(number)) => Some(*number as i64),
        _ => None,
    };
    let (text, is_full) = match (number("current"), number("available")) {
        (Some(current), Some(free)) => (
            format!("{own}; the server has {current} open, and room for {free} more"),
            free < i64::from(most),
        ),
        _ => (
            format!("{own}; this user may not see the server's number"),
            false,
        ),
    };
    match (is_full, most) {
        (true, _) => Check::warning(POOL, text)
            .advise("close other programs, or set maxPoolSize in their URIs"),
        (false, 1) => Check::warning(POOL, text).advise(
            "set maxPoolSize to more than 1: calls wait for each other, and no change stream opens",
        ),
        (false, _) => Check::ok(POOL, text),
    }
}

/// Opens a change stream, as waits do, and closes it.
pub(super) async fn change_stream(database: &Database, is_amazon: bool) -> Check {
    let opened = timeout(TIMEOUT, database.watch().into_future()).await;
    let why = match opened {
        Ok(Ok(_)) => {
            return Check::ok(CHANGE_STREAM, "opens: waits learn of new messages at once");
        }
        Ok(Err(error)) => error_text(&error),
        Err(_) => format!("no answer within {TIMEOUT:?}"),
    };
    let text = format!("does not open, so waits ask the queue again, every 2 s at least: {why}");
    let advice = match is_amazon {
        true => format!(
            "enable it: db.adminCommand({{modifyChangeStreams: 1, database: \"{}\", collection: \
             \"\", enable: true}})",
            database.name()
        ),
        false => "use a replica set, and grant the right changeStream".to_owned(),
    };
    Check::warning(CHANGE_STREAM, text).advise(advice)
}
