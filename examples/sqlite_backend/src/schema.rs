//! Step 1: how the four states of a message become columns.
//!
//! | state   | `visible_at`  | `receipt`                    |
//! |---------|---------------|------------------------------|
//! | delayed | in the future | null                         |
//! | ready   | now or past   | null, or of an expired lease |
//! | leased  | in the future | of the lease                 |
//! | dead    | null          | null                         |
//!
//! Nothing is moved when a delay or a lease ends: what is ready is a question of the time at
//! which one asks (E4, L2), so no background task can be late or die. The receipt outlives its
//! lease, because an expired one still works until a later delivery overwrites it (A3, A2).

use std::{path::Path, time::Duration};

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Result, StoreError};

/// The layout that this library reads and writes, as `PRAGMA user_version`.
const VERSION: i32 = 1;

/// How long a call waits for another process to finish its transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// - `UNIQUE (queue, id)` is what makes enqueue idempotent (E2), whoever sends (C2).
/// - `claim` is the order in which messages become ready (L4); dead letters are not in it, so a
///   claim never steps over them (D1).
/// - `receipt` finds a lease by its proof, and keeps it the only one of its kind (L3).
/// - `payload` is the last column: SQLite reads a row from the front, and what lies behind a
///   large payload would cost the walk through it.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE messages (
        queue        TEXT    NOT NULL,
        id           TEXT    NOT NULL,
        visible_at   INTEGER,          -- ms since 1970; null: dead
        receipt      TEXT,             -- of the last delivery, until it is settled
        attempts     INTEGER NOT NULL,
        max_attempts INTEGER NOT NULL,
        visibility   INTEGER NOT NULL, -- ms
        enqueued_at  INTEGER NOT NULL, -- ms since 1970
        died_at      INTEGER,          -- ms since 1970
        reason       TEXT,             -- why it is dead; null: attempts exhausted
        headers      TEXT    NOT NULL, -- a JSON object
        payload      BLOB    NOT NULL,
        UNIQUE (queue, id)
    ) STRICT;
    CREATE INDEX claim ON messages (queue, visible_at) WHERE visible_at IS NOT NULL;
    CREATE INDEX dead ON messages (queue, id) WHERE visible_at IS NULL;
    CREATE UNIQUE INDEX receipt ON messages (receipt) WHERE receipt IS NOT NULL;
";

/// Connects to a file, which is made where there is none.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    create_or_check(&mut connection)?;
    // - A write-ahead log lets readers and one writer work side by side, and a process that is
    //   killed in the middle leaves a tail which the next one ignores (R1).
    // - `synchronous = FULL` flushes that log at each commit. `NORMAL` would be faster and as
    //   safe against a kill, but a power failure could take back the last commits: a message
    //   that enqueue had accepted (E1), an ack that was `Applied` (A1), a lease that somebody
    //   works under (L1). Batches share one flush, so those in need of speed have a way.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mode: String = connection.query_one("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let why = format!("{path:?} cannot have a write-ahead log, its journal is {mode:?}");
        return Err(StoreError::Foreign(why));
    }
    Ok(connection)
}

/// Gives a new file its tables, and refuses one that is not ours before anything in it is
/// changed. One immediate transaction, so that of two processes which start at once the second
/// finds what the first has made (C2).
fn create_or_check(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (version, tables): (i32, u32) = transaction.query_one(
        "SELECT user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    match (version, tables) {
        (VERSION, _) => {}
        (0, 0) => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        (0, _) => {
            let why = "the file is a database of something else".to_owned();
            return Err(StoreError::Foreign(why));
        }
        (other, _) => {
            let why = format!("the file has schema version {other}, this library knows {VERSION}");
            return Err(StoreError::Foreign(why));
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// What is said against opening a file, which has to stay as it was.
    fn refusal(make: impl FnOnce(&Path)) -> String {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("file");
        make(&path);
        let before = fs::read(&path).expect("it was made");
        let error = open(&path).expect_err("it is refused").during("open");
        assert_eq!(error.kind(), queue_api::ErrorKind::Internal, "{error:?}");
        assert!(fs::read(&path).expect("it is there") == before, "{error:?}");
        error.to_string()
    }

    fn run(path: &Path, sql: &str) {
        let connection = Connection::open(path).expect("SQLite makes a file");
        connection.execute_batch(sql).expect("valid SQL");
    }

    #[test]
    fn another_version_is_refused() {
        let newer = format!("{SCHEMA} PRAGMA user_version = 2");
        assert_eq!(
            refusal(|path| run(path, &newer)),
            "open: the file has schema version 2, this library knows 1"
        );
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        assert_eq!(
            refusal(|path| run(path, "CREATE TABLE messages (body TEXT)")),
            "open: the file is a database of something else"
        );
        assert_eq!(
            refusal(|path| fs::write(path, "no database".repeat(100)).expect("a file")),
            "open: the file is no sound database"
        );
    }

    #[test]
    fn a_file_is_opened_again_as_it_was_made() {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("file");
        for _ in 0..2 {
            open(&path).expect("it opens");
        }
    }
}
