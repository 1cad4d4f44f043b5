//! The one error type of the framework.

use std::{error::Error as StdError, fmt, sync::Arc};

/// The result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong: the part of an [`Error`] to branch on.
///
/// A lease that is gone and a queue that is empty are outcomes, not errors: see
/// [`LeaseOutcome`](crate::LeaseOutcome) and [`QueueBackend::lease`](crate::QueueBackend::lease).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input is outside what is allowed. Nothing was sent to the store.
    InvalidInput,
    /// The store cannot be reached, is failing over, or refused for a reason that passes.
    Unavailable,
    /// The store did not answer within the operation timeout. Whether a write took effect
    /// is unknown; repeating the call is safe (contract line X1).
    TimedOut,
    /// The queue holds as many messages as its depth limit allows.
    QueueFull,
    /// The store refused the credentials, or they do not suffice for the operation.
    Denied,
    /// A payload could not be encoded or decoded.
    Codec,
    /// The store answered in a way that this library does not understand, or holds data
    /// that it did not write.
    Internal,
}

/// An error of the queue: what kind it is, what was being done, and the cause below it.
///
/// It is cheap to clone, because one failed round trip may be the answer to many callers.
///
/// ```
/// use queue_api::{ErrorKind, QueueName};
///
/// let error = QueueName::new("no spaces, please").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// assert!(!error.is_retryable());
/// ```
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    message: Arc<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that happened during `operation` (a verb, such as `"lease"`).
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            message: message.into().into(),
            source: None,
        }
    }

    /// Bad input: `message` says what was wrong and what is allowed.
    pub fn invalid(operation: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, operation, message)
    }

    /// The same error with the cause below it, which `Display` does not repeat.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// What to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done: `"enqueue"`, `"lease"`, `"ack"` …
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Whether the same call may succeed later without anything being changed.
    ///
    /// Every call may be repeated after any error without harm (contract line X1); this
    /// says whether it is worth it.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::QueueFull
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.kind)
            .field("operation", &self.operation)
            .field("message", &self.message);
        if let Some(source) = &self.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
