//! Queue names and message ids. A value of these types is always valid.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

use crate::{Error, Result};

/// The name of a queue: 1 to 80 ASCII letters, digits, `-`, `_` or `.`, starting with a letter or
/// a digit.
///
/// 80 bytes is the limit of Amazon SQS. A store may have less room, or reserve some names: then every
/// call on such a queue is [`InvalidInput`](crate::ErrorKind::InvalidInput) (contract line Q1).
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
    pub const MAX_BYTES: usize = 80;

    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the name breaks the rule above.
    pub fn new(name: &str) -> Result<Self> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(is_allowed)
            && name.len() <= Self::MAX_BYTES
        {
            return Ok(Self(name.into()));
        }
        let message = format!(
            "{name:?} is not a queue name; it must be 1 to {} ASCII letters, digits, '-', '_' or \
             '.', starting with a letter or digit",
            Self::MAX_BYTES
        );
        Err(Error::invalid("queue name", message))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text, without a copy.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

/// The id of a message in its queue: 1 to 128 bytes of UTF-8 without control characters.
///
/// A queue does not store the same id twice (contract line E2). Derive ids from your own data to
/// make enqueues idempotent.
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

    /// Checks and wraps an id.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the id breaks the rule above.
    pub fn new(id: &str) -> Result<Self> {
        if id.is_empty() || id.len() > Self::MAX_BYTES || id.chars().any(char::is_control) {
            let message = format!(
                "{id:?} is not a message id; it must be 1 to {} bytes of UTF-8 without control \
                 characters",
                Self::MAX_BYTES
            );
            return Err(Error::invalid("message id", message));
        }
        Ok(Self(id.into()))
    }

    /// Generates an id: a UUID of version 7. These sort by the time of their creation.
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
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
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

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::new(&text)
            }
        }

        impl TryFrom<&String> for $name {
            type Error = Error;

            fn try_from(text: &String) -> Result<Self> {
                Self::new(text)
            }
        }

        impl From<&Self> for $name {
            fn from(name: &Self) -> Self {
                name.clone()
            }
        }

        /// As text.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        /// From text, which must be valid.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(D::Error::custom)
            }
        }
    };
}

text_newtype!(QueueName);
text_newtype!(MessageId);
