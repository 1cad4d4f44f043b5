//! The error type of all calls.

use std::{error::Error as StdError, fmt, sync::Arc};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`], to branch on.
///
/// A lost lease and an empty queue are not errors. They are a
/// [`LeaseOutcome`](crate::LeaseOutcome) and an empty answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is not allowed. Nothing was sent to the store.
    InvalidInput,
    /// The store cannot be reached, is failing over, or refused for a temporary reason.
    Unavailable,
    /// The store did not answer within the operation timeout. A write may have taken effect. It
    /// is safe to repeat the call (contract line X1).
    TimedOut,
    /// The queue has reached its depth limit.
    QueueFull,
    /// The store rejected the credentials, or they lack the permission for the operation.
    Denied,
    /// A payload could not be encoded or decoded.
    Codec,
    /// The store returned an unexpected answer, or contains data that this library did not
    /// write.
    Internal,
}

/// An error with its kind, the operation that failed, and the cause.
///
/// It is cheap to clone, because one failed round trip may be the answer to many callers.
/// `Display` does not include the cause; `source()` returns it.
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
    /// An error of `kind` in `operation`, such as `"lease"`.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            message: message.into().into(),
            source: None,
        }
    }

    /// Invalid input. `message` says what was wrong and what is allowed.
    pub fn invalid(operation: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, operation, message)
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The kind, to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed: `"enqueue"`, `"lease"`, `"ack"` …
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Whether a repeat of the same call may succeed.
    ///
    /// A repeat is always safe (contract line X1). This tells whether it is useful.
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
