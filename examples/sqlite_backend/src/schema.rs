//! Step 1: how the four states of a message become columns.
//!
//! | state   | `visible_at`  | `receipt`                    |
//! |---------|---------------|------------------------------|
//! | delayed | in the future | null                         |
//! | ready   | now or past   | null, or of an expired lease |
//! | leased  | in the future | of the lease                 |
//! | dead    | null          | null                         |
//!
//! No row changes when a delay or a lease ends: a query compares `visible_at` with the time now
//! (E4, L2). So no background task is needed, which could be late or die. The receipt outlives its
//! lease, because an expired receipt still works until the next delivery replaces it (A3, A2).

use std::{path::Path, time::Duration};

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Result, StoreError};

/// The schema version, kept as `PRAGMA user_version`.
const VERSION: i32 = 1;

/// How long a call waits while another process writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// - `UNIQUE (queue, id)` makes enqueue idempotent (E2), also between processes (C2).
/// - Index `ready` has the live messages in order of ready time (L4). Dead letters are not in it,
///   so a lease call does not read them (D1).
/// - Index `receipt` finds a lease, and makes receipts unique (L3).
/// - `payload` is the last column, because SQLite reads a row from the front.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE messages (
        queue        TEXT    NOT NULL,
        id           TEXT    NOT NULL,
        visible_at   INTEGER,          -- ms since 1970; null: dead
        receipt      TEXT,             -- of the last delivery; null: none, or settled
        attempts     INTEGER NOT NULL,
        max_attempts INTEGER NOT NULL,
        visibility   INTEGER NOT NULL, -- ms
        enqueued_at  INTEGER NOT NULL, -- ms since 1970
        died_at      INTEGER,          -- ms since 1970
        reason       TEXT,             -- of a dead letter; null: attempts exhausted
        headers      TEXT    NOT NULL, -- a JSON object
        payload      BLOB    NOT NULL,
        UNIQUE (queue, id)
    ) STRICT;
    CREATE INDEX ready ON messages (queue, visible_at) WHERE visible_at IS NOT NULL;
    CREATE INDEX dead ON messages (queue, id) WHERE visible_at IS NULL;
    CREATE UNIQUE INDEX receipt ON messages (receipt) WHERE receipt IS NOT NULL;
";

/// Opens the file, and creates it if there is none.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    create_or_check(&mut connection)?;
    // R1: the write-ahead log survives a killed process. `FULL` flushes it at each commit, so it
    // also survives a power failure; `NORMAL` could lose the last commits. See
    // <https://sqlite.org/pragma.html#pragma_synchronous>.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mode: String = connection.query_one("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let why = format!("the journal mode of {path:?} is {mode}; it must be wal");
        return Err(StoreError::Unreadable(why));
    }
    Ok(connection)
}

/// Creates the tables in a new file. Refuses any other file that is not ours, before it changes
/// anything. The transaction begins as a writer, so of two processes that start at the same
/// moment, the second finds the tables of the first (C2).
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
            let why = "the file is another program's database".to_owned();
            return Err(StoreError::Unreadable(why));
        }
        (version, _) => {
            let why = format!("the schema version is {version}; it must be {VERSION}");
            return Err(StoreError::Unreadable(why));
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// The error from opening a file, which must stay unchanged.
    fn refusal(make: impl FnOnce(&Path)) -> String {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("file");
        make(&path);
        let before = fs::read(&path).expect("the file exists");
        let error = open(&path).expect_err("the file is refused").during("open");
        assert_eq!(error.kind(), queue_api::ErrorKind::Internal, "{error:?}");
        assert!(
            fs::read(&path).expect("the file exists") == before,
            "{error:?}"
        );
        error.to_string()
    }

    fn run(path: &Path, sql: &str) {
        let connection = Connection::open(path).expect("SQLite creates the file");
        connection.execute_batch(sql).expect("valid SQL");
    }

    #[test]
    fn another_version_is_refused() {
        let newer = format!("{SCHEMA} PRAGMA user_version = 2");
        assert_eq!(
            refusal(|path| run(path, &newer)),
            "open: the schema version is 2; it must be 1"
        );
    }

    #[test]
    fn files_of_other_programs_are_refused() {
        assert_eq!(
            refusal(|path| run(path, "CREATE TABLE messages (body TEXT)")),
            "open: the file is another program's database"
        );
        assert_eq!(
            refusal(|path| fs::write(path, "not a database".repeat(100)).expect("a file")),
            "open: the file is not a SQLite database, or is damaged"
        );
    }

    #[test]
    fn a_file_can_be_opened_again() {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("file");
        for _ in 0..2 {
            open(&path).expect("the file opens");
        }
    }
}
