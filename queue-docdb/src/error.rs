//! Errors of the store, and their mapping to [`Error`].

use std::{collections::HashSet, time::Duration};

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};
use queue_api::{Error, ErrorKind};

/// What went wrong between this crate and the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The driver's own errors, and most errors of the server.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The operation timeout passed first.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The server accepted a command and refused a statement in it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A write took effect, but a majority may not have it. A failover may undo it.
    #[error("{matched} documents were written, but not confirmed by a majority: {reason}")]
    Unconfirmed { matched: u64, reason: Refusal },
    /// The server's answer lacks a required field.
    #[error("the database's answer is not valid: {0}")]
    Unreadable(String),
    /// Another call settled some of the same messages. `Lost` would be wrong for some of them.
    #[error(
        "another call settled some of the same messages at the same time; it is unknown which \
         ones this call settled"
    )]
    Uncertain,
    /// Another writer enqueued the same id during a transaction, which has ended it.
    #[error("the transaction conflicts with another write")]
    TransactionConflict(#[source] Refusal),
    /// A unique index other than the one on `_id`, or a collation, refuses a message.
    #[error("{0}")]
    Index(String),
    /// The queue's collection would have a reserved name.
    #[error("{0}")]
    Name(String),
    /// The collection is another program's, or of another version of this library.
    #[error("{0}")]
    NotAQueue(String),
    /// The index is still being built.
    #[error(
        "no answer within {after:?}; the index `{index}` of the collection `{collection}` is still \
         being built, which waits until a majority of the voting members have it"
    )]
    LateIndex {
        index: &'static str,
        collection: String,
        after: Duration,
    },
}

/// The server's error about one statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("code {code}: {message}")]
pub(crate) struct Refusal {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl StoreError {
    /// Whether the index of a hint does not exist.
    pub(crate) fn is_missing_index(&self) -> bool {
        // MongoDB reports a missing index as BadValue. That has other reasons too, but not for
        // this crate's commands with a hint.
        const BAD_VALUE: i32 = 2;
        const INDEX_NOT_FOUND: i32 = 27;
        matches!(self, Self::Driver(error)
            if matches!(codes(error).as_slice(), [BAD_VALUE | INDEX_NOT_FOUND]))
    }

    /// Whether the server answered with this code.
    pub(crate) fn has_code(&self, code: i32) -> bool {
        matches!(self, Self::Driver(error) if codes(error).contains(&code))
    }

    /// Whether the `_id` is stored already.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.has_code(DUPLICATE_KEY)
    }

    /// Whether the same command may soon succeed, for example after a failover.
    pub(crate) fn is_transient(&self) -> bool {
        // Out of memory or disk space: an operator must act, so a retry does not help.
        const EXHAUSTED: [i32; 2] = [146, 14031];
        match self {
            Self::Driver(error) => {
                let codes = codes(error);
                !codes.iter().any(|code| EXHAUSTED.contains(code)) && is_retryable(self.kind())
            }
            Self::Refused(refusal)
            | Self::Unconfirmed {
                reason: refusal, ..
            } => !EXHAUSTED.contains(&refusal.code) && is_retryable(self.kind()),
            _ => false,
        }
    }

    /// What a write with this error may have done.
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Driver(error) => effect_of_driver_error(error),
            Self::Name(_) | Self::NotAQueue(_) | Self::LateIndex { .. } => Effect::None,
            // The command may have other statements than the refused one.
            Self::Refused(_) | Self::Unconfirmed { .. } | Self::Index(_) => Effect::Unknown,
            Self::TimedOut(_)
            | Self::Unreadable(_)
            | Self::Uncertain
            | Self::TransactionConflict(_) => Effect::Unknown,
        }
    }

    /// The kind of the public error.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Driver(error) => kind_of_driver_error(error),
            Self::TimedOut(_) | Self::LateIndex { .. } => ErrorKind::TimedOut,
            Self::Refused(refusal) => kind_of_code(refusal.code).unwrap_or(ErrorKind::Internal),
            // Whatever the reason is: the repeat finds what is true by then.
            Self::Unconfirmed { reason, .. } => {
                kind_of_code(reason.code).unwrap_or(ErrorKind::Unavailable)
            }
            Self::Uncertain | Self::TransactionConflict(_) => ErrorKind::Unavailable,
            Self::Unreadable(_) => ErrorKind::Internal,
            Self::Name(_) | Self::NotAQueue(_) | Self::Index(_) => ErrorKind::InvalidInput,
        }
    }

    /// The public error of `operation`.
    pub(crate) fn during(self, operation: &'static str) -> Error {
        let kind = self.kind();
        match self {
            Self::Driver(source) => {
                Error::new(kind, operation, explanation(kind)).with_source(source)
            }
            Self::Refused(source) => {
                Error::new(kind, operation, explanation(kind)).with_source(source)
            }
            Self::TransactionConflict(source) => {
                let message = "another writer enqueued one of the ids at the same time; abort the \
                               transaction and try again";
                Error::new(kind, operation, message).with_source(source)
            }
            Self::Unconfirmed { reason, .. } => {
                Error::new(kind, operation, explanation(kind)).with_source(reason)
            }
            Self::TimedOut(after) => Error::new(
                kind,
                operation,
                format!("no answer within {after:?}; whether a write took effect is unknown"),
            ),
            other => Error::new(kind, operation, other.to_string()),
        }
    }
}

fn is_retryable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut)
}

/// What a failed write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Certainly nothing. It may be sent again.
    None,
    /// All, a part or nothing, or it still runs.
    Unknown,
}

fn effect_of_driver_error(error: &DriverError) -> Effect {
    match &*error.kind {
        // There was no connection, so nothing was sent. `ConnectionPoolCleared` is not here: the
        // driver also reports it for a command that was under way.
        DriverKind::ServerSelection { .. }
        | DriverKind::DnsResolve { .. }
        | DriverKind::Authentication { .. }
        | DriverKind::InvalidArgument { .. }
        | DriverKind::InvalidTlsConfig { .. } => Effect::None,
        DriverKind::Io(cause) if cause.kind() == std::io::ErrorKind::ConnectionRefused => {
            Effect::None
        }
        DriverKind::Command(command) if is_refused_at_start(command.code) => Effect::None,
        _ => Effect::Unknown,
    }
}

/// Whether the server sends this code before the first statement of a command. It is not the
/// primary, or it met a write conflict and undid the statement. Any other code may end a command
/// that has begun.
fn is_refused_at_start(code: i32) -> bool {
    matches!(code, 10107 | 13435 | 10058 | 112)
}

/// For `map_err`: the public error of `operation`.
pub(crate) fn during(operation: &'static str) -> impl FnOnce(StoreError) -> Error {
    move |error| error.during(operation)
}

/// An `_id` that is stored already.
pub(crate) const DUPLICATE_KEY: i32 = 11000;

/// The message for a kind. The source has the details.
fn explanation(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable => "the database is not available",
        ErrorKind::TimedOut => {
            "the database reached a time limit; whether a write took effect is unknown"
        }
        ErrorKind::Denied => "the database refuses this user",
        ErrorKind::InvalidInput => "the database does not accept this",
        _ => "the database answered with an error",
    }
}

fn kind_of_driver_error(error: &DriverError) -> ErrorKind {
    let by_code = codes(error).into_iter().find_map(kind_of_code);
    if let Some(kind) = by_code {
        return kind;
    }
    match &*error.kind {
        DriverKind::Authentication { .. } => ErrorKind::Denied,
        DriverKind::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            ErrorKind::TimedOut
        }
        DriverKind::Io(_)
        | DriverKind::ConnectionPoolCleared { .. }
        | DriverKind::ServerSelection { .. }
        | DriverKind::DnsResolve { .. } => ErrorKind::Unavailable,
        DriverKind::InvalidArgument { .. } | DriverKind::InvalidTlsConfig { .. } => {
            ErrorKind::InvalidInput
        }
        _ if is_labelled_transient(error.labels()) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

fn is_labelled_transient(labels: &HashSet<String>) -> bool {
    ["RetryableWriteError", "TransientTransactionError"]
        .iter()
        .any(|label| labels.contains(*label))
}

/// All codes of the server in an error.
fn codes(error: &DriverError) -> Vec<i32> {
    match &*error.kind {
        DriverKind::Command(command) => vec![command.code],
        DriverKind::Write(WriteFailure::WriteError(write)) => vec![write.code],
        DriverKind::Write(WriteFailure::WriteConcernError(concern)) => vec![concern.code],
        DriverKind::InsertMany(insert) => {
            let refused = insert.write_errors.iter().flatten().map(|error| error.code);
            let concern = insert.write_concern_error.iter().map(|error| error.code);
            refused.chain(concern).collect()
        }
        _ => Vec::new(),
    }
}

/// The kind of an error code of MongoDB or DocumentDB, if it says more than "error".
fn kind_of_code(code: i32) -> Option<ErrorKind> {
    match code {
        // Unauthorized, authentication failed, "auth error" of the Atlas service, unsupported
        // mechanism (DocumentDB), user not found, reauthentication required.
        13 | 18 | 8000 | -301 | 11 | 391 => Some(ErrorKind::Denied),
        // Not primary, recovering, shutting down: a failover.
        10107 | 13435 | 10058 | 11600 | 11602 | 13436 | 189 | 91 => Some(ErrorKind::Unavailable),
        // Host unreachable or not found, network timeout, socket, no suitable host.
        6 | 7 | 89 | 9001 | 133 => Some(ErrorKind::Unavailable),
        // Write conflict, lock timeout or busy, interrupted, a cursor killed or gone, the
        // collection dropped under a find.
        112 | 24 | 46 | 11601 | 237 | 43 | 175 => Some(ErrorKind::Unavailable),
        // The server has ended the transaction: by a timeout or restart, because it was too old,
        // or its snapshot is gone. The whole transaction may be tried again.
        251 | 225 | 246 => Some(ErrorKind::Unavailable),
        // Out of memory or disk space.
        146 | 14031 => Some(ErrorKind::Unavailable),
        // DocumentDB before 8.0.2, if the client's retryable writes are on.
        301 | 9 => Some(ErrorKind::InvalidInput),
        // Time limits, among them that of a write concern.
        50 | 262 | 64 => Some(ErrorKind::TimedOut),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, io};

    use super::*;

    fn refused(code: i32) -> StoreError {
        let message = "no rights".to_owned();
        StoreError::Refused(Refusal { code, message })
    }

    #[test]
    fn codes_have_kinds() {
        for code in [13, 18, 8000, -301] {
            assert_eq!(refused(code).kind(), ErrorKind::Denied, "{code}");
        }
        for code in [10107, 13435, 11600, 11602, 189, 91, 10058, 13436, 112, 175] {
            assert_eq!(refused(code).kind(), ErrorKind::Unavailable, "{code}");
        }
        assert_eq!(refused(50).kind(), ErrorKind::TimedOut);
        assert_eq!(refused(11000).kind(), ErrorKind::Internal);
    }

    #[test]
    fn only_a_refused_command_had_no_effect() {
        let io = |kind| StoreError::from(DriverError::from(io::Error::from(kind)));
        assert_eq!(
            io(io::ErrorKind::ConnectionRefused).effect(),
            Effect::None,
            "no server was there"
        );
        let unknown = [
            io(io::ErrorKind::BrokenPipe),
            io(io::ErrorKind::UnexpectedEof),
            refused(112),
            StoreError::TimedOut(Duration::ZERO),
        ];
        for error in unknown {
            assert_eq!(error.effect(), Effect::Unknown, "{error}");
        }
        assert!(is_refused_at_start(10107) && !is_refused_at_start(11602));
    }

    #[test]
    fn transient_errors_may_be_retried() {
        for code in [10107, 189, 112, 64, 6] {
            assert!(refused(code).is_transient(), "{code}");
        }
        for code in [13, 121, 146, 14031] {
            assert!(!refused(code).is_transient(), "{code}");
        }
        assert!(!StoreError::TimedOut(Duration::ZERO).is_transient());
        assert!(!StoreError::Uncertain.is_transient());
    }

    #[test]
    fn driver_errors_have_kinds() {
        let kind = |error: DriverError| StoreError::from(error).kind();
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(kind(broken.into()), ErrorKind::Unavailable);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(kind(late.into()), ErrorKind::TimedOut);
        assert_eq!(
            kind(DriverError::custom("unknown")),
            ErrorKind::Internal,
            "an unknown error"
        );
    }

    #[test]
    fn the_message_does_not_repeat_its_source() {
        let error = refused(13).during("ack");
        assert_eq!(error.to_string(), "ack: the database refuses this user");
        let source = error.source().expect("the refusal is the source");
        assert_eq!(source.to_string(), "code 13: no rights");
        assert!(!error.is_retryable());
        assert!(refused(91).during("ack").is_retryable());
    }
}
