//! Queue names and message ids: parsed once at the edge, valid ever after.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use crate::{Error, Result};

/// The name of a queue: 1 to 48 ASCII letters, digits, `-`, `_` or `.`, the first of them a
/// letter or a digit.
///
/// The length leaves room for a prefix within the 57 bytes that Amazon DocumentDB allows a
/// collection name, the narrowest rule among the stores that were looked at.
///
/// ```
/// use queue_api::QueueName;
///
/// let name = QueueName::new("mail.outgoing")?;
/// assert_eq!(name.as_str(), "mail.outgoing");
/// assert!(QueueName::new("").is_err());
/// assert!(QueueName::new("$cmd").is_err());
/// # Ok::<(), queue_api::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 48;

    /// Checks `name` against the rule above.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), saying what is allowed.
    pub fn new(name: &str) -> Result<Self> {
        let first_is_plain = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        let all_allowed = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if first_is_plain && all_allowed && name.len() <= Self::MAX_BYTES {
            return Ok(Self(name.into()));
        }
        Err(Error::invalid(
            "queue name",
            format!(
                "{name:?} is not a queue name: 1 to {} ASCII letters, digits, '-', '_' or '.', \
                 beginning with a letter or digit",
                Self::MAX_BYTES
            ),
        ))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as text that costs nothing to keep.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

/// The identity of a message within its queue: 1 to 128 bytes of UTF-8 without control
/// characters.
///
/// An id that the queue holds, in whatever state, is not stored again (contract line E2), so
/// an application that derives ids from its own data gets idempotent enqueues.
///
/// ```
/// use queue_api::MessageId;
///
/// let chosen = MessageId::new("invoice-2041")?;
/// assert_eq!(chosen.to_string(), "invoice-2041");
/// assert!(MessageId::generate() < MessageId::generate());
/// # Ok::<(), queue_api::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Checks an id that the sender chose.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), saying what is allowed.
    pub fn new(id: &str) -> Result<Self> {
        if id.is_empty() || id.len() > Self::MAX_BYTES || id.chars().any(char::is_control) {
            return Err(Error::invalid(
                "message id",
                format!(
                    "{id:?} is not a message id: 1 to {} bytes of UTF-8 without control characters",
                    Self::MAX_BYTES
                ),
            ));
        }
        Ok(Self(id.into()))
    }

    /// A new id: a UUID of version 7, which sorts by the time it was made.
    pub fn generate() -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self((&*Uuid::now_v7().hyphenated().encode_lower(&mut buffer)).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }
    };
}

text_newtype!(QueueName);
text_newtype!(MessageId);
