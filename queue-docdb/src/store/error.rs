//! Errors of the store, and their mapping to [`Error`].

use std::{fmt, time::Duration};

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind};
use queue_api::{Error, ErrorKind};

use crate::store::{
    codes::{self, DUPLICATE_KEY, is_retryable, kind_of_concern, kind_of_driver_error},
    driver_error::{explained_by, explanation, unknown_effect, words},
    index::Index,
};

/// What went wrong between this crate and the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The driver's own errors, and most errors of the server.
    #[error("{}", words(.0))]
    Driver(#[from] DriverError),
    /// The operation timeout passed first.
    #[error("no answer within {0}")]
    TimedOut(Limit),
    /// Tokio's clock, which the driver's and this crate's timeouts use, is ahead of real time.
    #[error(
        "tokio's clock is paused or was advanced, so timeouts end at once; use real time \
         (tokio::time::resume) while the database is used"
    )]
    PausedClock,
    /// The server accepted a command and refused a statement in it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A write took effect, but a majority may not have it. A failover may undo it.
    #[error("{matched} documents were written, but not confirmed by a majority: {reason}")]
    Unconfirmed { matched: u64, reason: Refusal },
    /// The server's answer lacks a required field.
    #[error("the database's answer is not valid: {0}")]
    Unreadable(String),
    /// The outcome cannot be told: another call changed the same messages, or an answer was lost.
    #[error(
        "what this call did is unknown, because another call changed the same messages or an \
         answer was lost; repeat the call"
    )]
    Uncertain,
    /// Another writer enqueued the same id during a transaction, which has ended it.
    #[error("the transaction conflicts with another write")]
    TransactionConflict(#[source] Refusal),
    /// What cannot be used: a setting, a name, an index, a collection, a session or a runtime. The text
    /// says why.
    #[error("{0}")]
    Invalid(String),
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

/// The operation timeout, and what else may explain that it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) after: Duration,
    /// Whether the runtime that connected may not be running.
    pub(crate) is_runtime_doubtful: bool,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.after)?;
        if self.is_runtime_doubtful {
            let why = "the tokio runtime in which this backend was connected may not be running";
            write!(f, "; {why}")?;
        }
        Ok(())
    }
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
        let is_carried_out = matches!(self, Self::Unconfirmed { .. });
        !is_carried_out && matches!(self.refusal(), Some((BAD_VALUE | INDEX_NOT_FOUND, _)))
    }

    /// Whether this index is still being built.
    pub(crate) fn is_late(&self, index: Index) -> bool {
        matches!(self, Self::LateIndex { index: late, .. } if *late == index.name())
    }

    /// Whether the server answered with this code.
    pub(crate) fn has_code(&self, code: i32) -> bool {
        self.refusal().is_some_and(|(refused, _)| refused == code)
    }

    /// The server's code, with its message.
    pub(crate) fn refusal(&self) -> Option<(i32, &str)> {
        match self {
            Self::Driver(error) => codes::refusal(error),
            Self::Refused(reason) | Self::Unconfirmed { reason, .. } => {
                Some((reason.code, &reason.message))
            }
            _ => None,
        }
    }

    /// Whether the `_id` is stored already.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.has_code(DUPLICATE_KEY)
    }

    /// Whether the same command may soon succeed, for example after a failover.
    pub(crate) fn is_transient(&self) -> bool {
        let refusal = self.refusal();
        let needs_operator = |(code, message)| codes::needs_operator(code, message);
        (matches!(self, Self::Driver(_)) || refusal.is_some())
            && is_retryable(self.kind())
            && !refusal.is_some_and(needs_operator)
    }

    /// Whether a write with this error certainly did nothing. It may be sent again.
    pub(crate) fn did_nothing(&self) -> bool {
        let Self::Driver(error) = self else {
            return false;
        };
        match &*error.kind {
            // There was no connection, so nothing was sent. `ConnectionPoolCleared` is not here: the
            // driver also reports it for a command that was under way.
            DriverKind::ServerSelection { .. }
            | DriverKind::DnsResolve { .. }
            | DriverKind::Authentication { .. }
            | DriverKind::InvalidArgument { .. }
            | DriverKind::InvalidTlsConfig { .. } => true,
            DriverKind::Io(cause) => cause.kind() == std::io::ErrorKind::ConnectionRefused,
            DriverKind::Command(command) => codes::is_refused_at_start(command.code),
            _ => false,
        }
    }

    /// The kind of the public error.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Driver(error) => kind_of_driver_error(error),
            Self::TimedOut(_) | Self::LateIndex { .. } => ErrorKind::TimedOut,
            Self::Refused(Refusal { code, message }) => {
                codes::kind(*code, message).unwrap_or(ErrorKind::Internal)
            }
            Self::Unconfirmed { reason, .. } => kind_of_concern(reason.code, &reason.message),
            Self::Uncertain | Self::TransactionConflict(_) => ErrorKind::Unavailable,
            Self::Unreadable(_) => ErrorKind::Internal,
            Self::Invalid(_) | Self::PausedClock => ErrorKind::InvalidInput,
        }
    }

    /// The public error of `operation`.
    pub(crate) fn during(self, operation: &'static str) -> Error {
        let kind = self.kind();
        match self {
            Self::Driver(source) => {
                let message = explanation(kind, operation);
                explained_by(source, kind, operation, &message)
            }
            Self::Refused(reason) | Self::Unconfirmed { reason, .. } => {
                let message = format!("{}: {reason}", explanation(kind, operation));
                Error::new(kind, operation, message).with_source(reason)
            }
            Self::TransactionConflict(source) => {
                let message = "another writer enqueued one of the ids at the same time; abort the \
                               transaction and try again";
                Error::new(kind, operation, message).with_source(source)
            }
            Self::TimedOut(after) => {
                let message = format!("no answer within {after}{}", unknown_effect(operation));
                Error::new(kind, operation, message)
            }
            // A write may have been sent by then, so its error must not say that the input is wrong.
            Self::PausedClock if !unknown_effect(operation).is_empty() => {
                let message = format!("{}{}", Self::PausedClock, unknown_effect(operation));
                Error::new(ErrorKind::TimedOut, operation, message)
            }
            other => Error::new(kind, operation, other.to_string()),
        }
    }
}

/// Makes a call, with the public error of `operation`.
pub(crate) async fn during<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Error> {
    call.await.map_err(|error| error.during(operation))
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, io};

    use super::*;

    fn timed_out() -> StoreError {
        StoreError::TimedOut(Limit {
            after: Duration::ZERO,
            is_runtime_doubtful: false,
        })
    }

    fn refused(code: i32) -> StoreError {
        let message = "no rights".to_owned();
        StoreError::Refused(Refusal { code, message })
    }

    fn command(code: i32) -> StoreError {
        codes::refused_command(code, "no").into()
    }

    /// The codes of the table, and one that no server has.
    fn all_codes() -> impl Iterator<Item = i32> {
        let lines = include_str!("error_codes.txt").lines();
        lines
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .chain([99_999])
    }

    /// A command that is sent again after it took effect stores a message twice.
    #[test]
    fn the_codes_of_a_server_that_is_not_primary_mean_that_nothing_was_done() {
        for code in all_codes() {
            let is_expected = [10058, 10107, 13435].contains(&code);
            assert_eq!(command(code).did_nothing(), is_expected, "{code}");
            assert!(!refused(code).did_nothing(), "{code}");
        }
    }

    #[test]
    fn a_code_has_one_kind_wherever_it_is_and_a_write_without_a_majority_may_be_repeated() {
        for code in all_codes() {
            assert_eq!(command(code).kind(), refused(code).kind(), "{code}");
            let reason = Refusal {
                code,
                message: String::new(),
            };
            let unconfirmed = StoreError::Unconfirmed { matched: 1, reason };
            assert!(is_retryable(unconfirmed.kind()), "{code}");
        }
    }

    #[test]
    fn only_a_refused_command_had_no_effect() {
        let io = |kind| StoreError::from(DriverError::from(io::Error::from(kind)));
        assert!(
            io(io::ErrorKind::ConnectionRefused).did_nothing(),
            "no server was there"
        );
        let unknown = [
            io(io::ErrorKind::BrokenPipe),
            io(io::ErrorKind::UnexpectedEof),
            refused(112),
            timed_out(),
        ];
        for error in unknown {
            assert!(!error.did_nothing(), "{error}");
        }
    }

    #[test]
    fn calls_that_only_read_do_not_speak_of_writes() {
        for operation in [
            "connect",
            "stats",
            "peek",
            "wait",
            "dead letters",
            "list queues",
        ] {
            for error in [timed_out(), command(50)] {
                let text = error.during(operation).to_string();
                assert!(!text.contains("write"), "{text}");
            }
        }
        for error in [timed_out(), command(50)] {
            let text = error.during("lease").to_string();
            assert!(
                text.contains("whether a write took effect is unknown"),
                "{text}"
            );
        }
    }

    #[test]
    fn transient_errors_may_be_retried() {
        for code in [10107, 189, 112, 64, 6] {
            assert!(refused(code).is_transient(), "{code}");
        }
        for code in [13, 121, 146, 14031] {
            assert!(!refused(code).is_transient(), "{code}");
        }
        assert!(!timed_out().is_transient());
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
    fn the_message_has_the_cause_in_words_and_the_chain_does_not_repeat_it() {
        let error = refused(13).during("ack");
        let text = "ack: the database refuses this user: code 13: no rights";
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:#}"), text);
        let source = error.source().expect("the refusal is the source");
        assert_eq!(source.to_string(), "code 13: no rights");
        assert!(!error.is_retryable());
        assert!(refused(91).during("ack").is_retryable());
    }
}
