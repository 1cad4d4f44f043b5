//! Step 6: every error of the store as one of the contract's.

use std::fmt::Display;

use queue_api::{Error, ErrorKind};
use rusqlite::ErrorCode as Code;

/// Why an operation failed. What it had done is undone then (X1).
#[derive(Debug)]
pub(crate) enum StoreError {
    Sqlite(rusqlite::Error),
    /// A file or a row that this version of this library did not write.
    Foreign(String),
}

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    pub(crate) fn damaged(column: &str, why: impl Display) -> Self {
        Self::Foreign(format!("damaged {column}: {why}"))
    }

    /// The public error. Its kind says whether a repeat is worth it.
    pub(crate) fn during(self, operation: &'static str) -> Error {
        let source = match self {
            Self::Sqlite(source) => source,
            Self::Foreign(why) => return Error::new(ErrorKind::Internal, operation, why),
        };
        let (kind, message) = match source.sqlite_error_code() {
            // Another process held the file for longer than the busy timeout.
            Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => {
                (ErrorKind::Unavailable, "the file is in use")
            }
            // Not `QueueFull`, which is about a limit on messages. It passes when somebody makes
            // room on the disk; acks cannot, for they too are first written to the log.
            Some(Code::DiskFull) => (ErrorKind::Unavailable, "the disk is full"),
            Some(Code::SystemIoFailure | Code::CannotOpen | Code::OutOfMemory) => {
                (ErrorKind::Unavailable, "the file cannot be reached")
            }
            Some(Code::PermissionDenied | Code::ReadOnly) => {
                (ErrorKind::Denied, "the file may not be written")
            }
            Some(Code::TooBig) => (ErrorKind::InvalidInput, "SQLite holds nothing so large"),
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => {
                (ErrorKind::Internal, "the file is no sound database")
            }
            // A mistake of this library, or a row that it did not write.
            Some(_) | None => (ErrorKind::Internal, "SQLite did something unexpected"),
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
    fn what_passes_is_worth_a_repeat() {
        let of_code = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for (code, kind, retryable) in [
            (ffi::SQLITE_BUSY, ErrorKind::Unavailable, true),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Unavailable, true),
            (ffi::SQLITE_FULL, ErrorKind::Unavailable, true),
            (ffi::SQLITE_READONLY_DIRECTORY, ErrorKind::Denied, false),
            (ffi::SQLITE_CORRUPT_INDEX, ErrorKind::Internal, false),
            (ffi::SQLITE_MISUSE, ErrorKind::Internal, false),
        ] {
            let error = StoreError::from(of_code(code)).during("lease");
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable));
            assert!(std::error::Error::source(&error).is_some());
        }
    }
}
