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
    /// The call, a setting, or how the store is set up is not allowed. A repeat of the same call fails
    /// again.
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

impl ErrorKind {
    /// The kind in lower case, such as `"invalid input"`. It never changes, so metrics and scripts
    /// can use it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid input",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed out",
            Self::QueueFull => "queue full",
            Self::Denied => "denied",
            Self::Codec => "codec",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An input that is out of range: which one, its value, and what is allowed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// use std::sync::Arc;
/// use queue_api::{NewMessage, Queue};
/// use queue_memory::MemoryBackend;
///
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "mail")?;
/// let batch = [NewMessage::new("a"), NewMessage::new("b").with_max_attempts(0)];
/// let error = queue.enqueue_batch(&batch).await.unwrap_err();
///
/// let wrong = error.invalid_input().expect("an input is out of range");
/// assert_eq!((wrong.item, wrong.name), (Some(1), "max_attempts"));
/// assert_eq!((wrong.value.as_str(), wrong.allowed.as_str()), ("0", "at least 1"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidInput {
    /// The position in the batch, from 0. `None` if the call has no batch.
    pub item: Option<usize>,
    /// What is out of range, such as `"payload size"` or `"visibility timeout"`.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
    /// How the error names the item.
    label: Option<String>,
}

impl InvalidInput {
    /// `name` has this value, and only what `allowed` says is allowed: "at most 10".
    pub fn new(name: &'static str, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            item: None,
            name,
            value: value.into(),
            allowed: allowed.into(),
            label: None,
        }
    }

    pub(crate) fn of_item(mut self, item: usize, label: String) -> Self {
        self.item = Some(item);
        self.label = Some(label);
        self
    }
}

impl fmt::Display for InvalidInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = &self.label {
            write!(f, "{label}: ")?;
        }
        let Self {
            name,
            value,
            allowed,
            ..
        } = self;
        write!(f, "{name} is {value}; it must be {allowed}")
    }
}

/// An error with its kind, the operation that failed, and the cause.
///
/// `{error:?}` has the kind and the whole chain, so a `main` that returns this error prints what you
/// need.
///
/// It is cheap to clone, because one failed round trip may be the answer to many callers.
/// `{error}` does not include the cause, because `source()` returns it. `{error:#}` is the whole
/// chain of causes in one line.
///
/// ```
/// use queue_api::{Error, ErrorKind, QueueName};
///
/// let error = QueueName::new("no spaces, please").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// assert!(!error.is_retryable());
///
/// let error = Error::new(ErrorKind::Unavailable, "lease", "the store is away")
///     .with_source("connection refused");
/// assert_eq!(error.to_string(), "lease: the store is away");
/// assert_eq!(format!("{error:#}"), "lease: the store is away: connection refused");
/// assert_eq!(format!("{error:?}"), "lease: the store is away: connection refused (unavailable)");
/// ```
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    message: Arc<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    input: Option<Arc<InvalidInput>>,
}

impl Error {
    /// An error of `kind` in `operation`, such as `"lease"`.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            message: message.into().into(),
            source: None,
            input: None,
        }
    }

    /// Invalid input. `message` says what was wrong and what is allowed.
    pub fn invalid(operation: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, operation, message)
    }

    /// An input that is out of range.
    pub fn invalid_value(operation: &'static str, input: InvalidInput) -> Self {
        Self {
            input: Some(Arc::new(input.clone())),
            ..Self::invalid(operation, input.to_string())
        }
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

    /// Which input was out of range. `None` for other errors, and for what has no range, such as
    /// a name.
    pub fn invalid_input(&self) -> Option<&InvalidInput> {
        self.input.as_deref()
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

    /// Whether one item of a batch may have caused it. Then the others may succeed without that item.
    pub(crate) fn may_be_one_item(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::InvalidInput | ErrorKind::Codec | ErrorKind::Internal
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)?;
        if f.alternate() {
            write_causes(f, self)?;
        }
        Ok(())
    }
}

/// Writes the sources of an error, each after a colon. A source that the text before already ends
/// with is left out: some errors repeat their source.
pub(crate) fn write_causes(f: &mut fmt::Formatter<'_>, error: &dyn StdError) -> fmt::Result {
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !last.ends_with(&text) {
            write!(f, ": {text}")?;
            last = text;
        }
        source = cause.source();
    }
    Ok(())
}

/// A name or an id that is valid already.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// In words, because a `main` that returns an error prints this.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#} ({})", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
