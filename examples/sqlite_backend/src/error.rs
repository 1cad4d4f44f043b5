//! Step 6: maps every SQLite error to an error of the contract.

use std::fmt::Display;

use queue_api::{Error, ErrorKind};
use rusqlite::ErrorCode as Code;

/// Why an operation failed. Its transaction was rolled back (X1).
#[derive(Debug)]
pub(crate) enum StoreError {
    Sqlite(rusqlite::Error),
    /// A file or a row that this version did not write.
    Unreadable(String),
}

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    pub(crate) fn damaged(column: &str, why: impl Display) -> Self {
        Self::Unreadable(format!("column {column} of a message is damaged: {why}"))
    }

    /// The public error. Its kind says whether a retry can help.
    pub(crate) fn during(self, operation: &'static str) -> Error {
        let source = match self {
            Self::Sqlite(source) => source,
            Self::Unreadable(why) => return Error::new(ErrorKind::Internal, operation, why),
        };
        let (kind, message) = match source.sqlite_error_code() {
            // Another process kept the file locked for longer than the busy timeout.
            Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => (
                ErrorKind::Unavailable,
                "the file is locked by another process",
            ),
            // Not `QueueFull`: acks make no room either, since they are written to the log first.
            Some(Code::DiskFull) => (ErrorKind::Unavailable, "the disk is full"),
            Some(Code::SystemIoFailure | Code::CannotOpen | Code::OutOfMemory) => {
                (ErrorKind::Unavailable, "the file cannot be read or written")
            }
            Some(Code::PermissionDenied | Code::ReadOnly) => {
                (ErrorKind::Denied, "no permission to write the file")
            }
            Some(Code::TooBig) => (ErrorKind::InvalidInput, "the value is too large for SQLite"),
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => (
                ErrorKind::Internal,
                "the file is not a SQLite database, or is damaged",
            ),
            // A bug here, or a row that this version did not write.
            Some(_) | None => (ErrorKind::Internal, "SQLite failed unexpectedly"),
        };
        Error::new(kind, operation, message).with_source(source)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn only_passing_errors_are_retryable() {
        let sqlite_error = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for (code, kind, retryable) in [
            (ffi::SQLITE_BUSY, ErrorKind::Unavailable, true),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Unavailable, true),
            (ffi::SQLITE_FULL, ErrorKind::Unavailable, true),
            (ffi::SQLITE_READONLY_DIRECTORY, ErrorKind::Denied, false),
            (ffi::SQLITE_CORRUPT_INDEX, ErrorKind::Internal, false),
            (ffi::SQLITE_MISUSE, ErrorKind::Internal, false),
        ] {
            let error = StoreError::from(sqlite_error(code)).during("lease");
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable));
            assert!(std::error::Error::source(&error).is_some());
        }
    }
}
