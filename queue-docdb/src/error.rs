//! What can go wrong between here and the database, and the one place where it becomes an
//! [`Error`].

use std::{collections::HashSet, time::Duration};

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};
use queue_api::{Error, ErrorKind};

/// A failure below the contract.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The driver's own errors, among them most refusals of the server.
    #[error("the driver failed")]
    Driver(#[from] DriverError),
    /// The operation timeout passed first.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The server took a command but refused a statement in it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A write took effect, but whether a majority has it is not known: a failover may undo it.
    #[error("{matched} documents, and then: {reason}")]
    Unconfirmed { matched: u64, reason: Refusal },
    /// The server's answer lacks what it must have.
    #[error("the database's answer was not understood: {0}")]
    Unreadable(String),
    /// Calls with the same receipts met, and whose call did what cannot be told. To say `Lost`
    /// would be wrong for some.
    #[error(
        "others settled some of the same messages meanwhile; which of them this call ended \
         cannot be told"
    )]
    Uncertain,
    /// Two transactions, or one and somebody else, wrote the same message.
    #[error("the transaction is void")]
    Void(#[source] Refusal),
    /// Another index than that of the ids refuses a message.
    #[error("{0}")]
    Index(String),
    /// A queue that cannot have a collection.
    #[error("{0}")]
    Name(String),
    /// A queue that another version of this library has made its own.
    #[error("{0}")]
    Schema(String),
}

/// What the server says about a statement that it did not carry out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("code {code}: {message}")]
pub(crate) struct Refusal {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl StoreError {
    /// Whether the server did not find the index that a hint names.
    pub(crate) fn is_missing_index(&self) -> bool {
        // MongoDB reports a bad hint as BadValue; IndexNotFound is what its name says. Only
        // asked of commands that carry a hint and that are otherwise known to be well formed.
        const BAD_VALUE: i32 = 2;
        const INDEX_NOT_FOUND: i32 = 27;
        matches!(self, Self::Driver(error)
            if matches!(codes(error).as_slice(), [BAD_VALUE | INDEX_NOT_FOUND]))
    }

    /// Whether an `_id` was stored already.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self, Self::Driver(error) if codes(error).contains(&DUPLICATE_KEY))
    }

    /// Whether the same command may succeed in a moment: after a failover, or when whoever was
    /// in the way is gone.
    pub(crate) fn is_passing(&self) -> bool {
        // Memory and disks come back when somebody acts, not in the time of a call.
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

    /// What a write may have done that ended with this.
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Driver(error) => effect_of_driver_error(error),
            Self::Name(_) | Self::Schema(_) => Effect::None,
            // A statement was refused, and others may have been carried out.
            Self::Refused(_) | Self::Unconfirmed { .. } | Self::Index(_) => Effect::Unknown,
            Self::TimedOut(_) | Self::Unreadable(_) | Self::Uncertain | Self::Void(_) => {
                Effect::Unknown
            }
        }
    }

    /// What to branch on.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Driver(error) => kind_of_driver_error(error),
            Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::Refused(refusal) => kind_of_code(refusal.code).unwrap_or(ErrorKind::Internal),
            // Whatever the reason is: the repeat finds what is true by then.
            Self::Unconfirmed { reason, .. } => {
                kind_of_code(reason.code).unwrap_or(ErrorKind::Unavailable)
            }
            Self::Uncertain | Self::Void(_) => ErrorKind::Unavailable,
            Self::Unreadable(_) => ErrorKind::Internal,
            Self::Name(_) | Self::Schema(_) | Self::Index(_) => ErrorKind::InvalidInput,
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
            Self::Void(source) => {
                let message = "somebody else stored one of the messages meanwhile, so the \
                               transaction is void";
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

/// What a write that failed did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing, for certain: it may be sent again.
    None,
    /// All of it, or a part, or nothing; or it still goes on.
    Unknown,
}

fn effect_of_driver_error(error: &DriverError) -> Effect {
    match &*error.kind {
        // No connection was had, so nothing was sent. `ConnectionPoolCleared` is none of these: the
        // driver also says it of a command that was under way.
        DriverKind::ServerSelection { .. }
        | DriverKind::DnsResolve { .. }
        | DriverKind::Authentication { .. }
        | DriverKind::InvalidArgument { .. }
        | DriverKind::InvalidTlsConfig { .. } => Effect::None,
        DriverKind::Io(cause) if cause.kind() == std::io::ErrorKind::ConnectionRefused => {
            Effect::None
        }
        DriverKind::Command(command) if is_turned_away(command.code) => Effect::None,
        _ => Effect::Unknown,
    }
}

/// Whether the server says this before the first statement of a command: it is not the primary,
/// or a write conflict, which undoes what it ends. Any other code may end a command that had
/// begun.
fn is_turned_away(code: i32) -> bool {
    matches!(code, 10107 | 13435 | 10058 | 112)
}

/// For `map_err`: the public error of `operation`.
pub(crate) fn during(operation: &'static str) -> impl FnOnce(StoreError) -> Error {
    move |error| error.during(operation)
}

/// An `_id` that is stored already.
pub(crate) const DUPLICATE_KEY: i32 = 11000;

/// What a kind means for whoever reads the message; the details are in the source.
fn explanation(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable => "the database is not available",
        ErrorKind::TimedOut => "the database gave up; whether a write took effect is unknown",
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
        // What the server itself marks as passing.
        _ if is_labelled_passing(error.labels()) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

fn is_labelled_passing(labels: &HashSet<String>) -> bool {
    ["RetryableWriteError", "TransientTransactionError"]
        .iter()
        .any(|label| labels.contains(*label))
}

/// Every code that the server put into an error.
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

/// The kinds behind MongoDB's and DocumentDB's codes, where a code says more than "error".
fn kind_of_code(code: i32) -> Option<ErrorKind> {
    match code {
        // Unauthorized, authentication failed, "auth error" of the service itself, an
        // unsupported mechanism (DocumentDB), user not found, authenticate again.
        13 | 18 | 8000 | -301 | 11 | 391 => Some(ErrorKind::Denied),
        // Not primary, recovering, shutting down: a failover.
        10107 | 13435 | 10058 | 11600 | 11602 | 13436 | 189 | 91 => Some(ErrorKind::Unavailable),
        // Host unreachable or not found, network timeout, socket, no suitable host.
        6 | 7 | 89 | 9001 | 133 => Some(ErrorKind::Unavailable),
        // Write conflict, lock timeout or busy, interrupted, a cursor killed or gone, the
        // collection dropped under a find.
        112 | 24 | 46 | 11601 | 237 | 43 | 175 => Some(ErrorKind::Unavailable),
        // A transaction that the server gave up: timed out or forgotten in a restart, too old,
        // or its snapshot is gone. All of it may be tried again.
        251 | 225 | 246 => Some(ErrorKind::Unavailable),
        // Out of memory or disk space: passes when somebody acts.
        146 | 14031 => Some(ErrorKind::Unavailable),
        // DocumentDB before 8.0.2 to a client whose retryable writes are on: in its own words,
        // and as a field that it does not know.
        301 | 9 => Some(ErrorKind::InvalidInput),
        // Time limits; a write concern that was not reached in time.
        50 | 262 | 64 => Some(ErrorKind::TimedOut),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, io};

    use super::*;

    fn refused(code: i32) -> StoreError {
        let message = "said the server".to_owned();
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
    fn only_what_was_turned_away_had_no_effect() {
        let io = |kind| StoreError::from(DriverError::from(io::Error::from(kind)));
        assert_eq!(
            io(io::ErrorKind::ConnectionRefused).effect(),
            Effect::None,
            "nobody was there to be told"
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
        assert!(is_turned_away(10107) && !is_turned_away(11602));
    }

    #[test]
    fn what_passes_is_what_may_be_repeated() {
        for code in [10107, 189, 112, 64, 6] {
            assert!(refused(code).is_passing(), "{code}");
        }
        for code in [13, 121, 146, 14031] {
            assert!(!refused(code).is_passing(), "{code}");
        }
        assert!(!StoreError::TimedOut(Duration::ZERO).is_passing());
        assert!(!StoreError::Uncertain.is_passing());
    }

    #[test]
    fn driver_errors_have_kinds() {
        let kind = |error: DriverError| StoreError::from(error).kind();
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(kind(broken.into()), ErrorKind::Unavailable);
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(kind(late.into()), ErrorKind::TimedOut);
        assert_eq!(
            kind(DriverError::custom("who knows")),
            ErrorKind::Internal,
            "an error that nobody foresaw"
        );
    }

    #[test]
    fn the_message_leaves_the_cause_to_the_source() {
        let error = refused(13).during("ack");
        assert_eq!(error.to_string(), "ack: the database refuses this user");
        let source = error.source().expect("the refusal is the source");
        assert_eq!(source.to_string(), "code 13: said the server");
        assert!(!error.is_retryable());
        assert!(refused(91).during("ack").is_retryable());
    }
}
