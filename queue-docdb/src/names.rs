//! Names of databases and collections.

use queue_api::{Error, QueueName};

use crate::error::StoreError;

/// The longest collection name, in bytes.
///
/// <https://docs.aws.amazon.com/documentdb/latest/developerguide/limits.html>
const MAX_COLLECTION_BYTES: usize = 57;
const MAX_DATABASE_BYTES: usize = 63;
/// The longest `database.collection`, in bytes.
const MAX_NAMESPACE_BYTES: usize = 120;

/// What the collections' names begin with. The queue's name follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Checks that DocumentDB allows `prefix` with every queue's name in `database`.
    pub(crate) fn new(database: &str, prefix: String) -> Result<Self, Error> {
        let most = (MAX_COLLECTION_BYTES - QueueName::MAX_BYTES)
            .min(MAX_NAMESPACE_BYTES.saturating_sub(database.len() + 1 + QueueName::MAX_BYTES));
        if prefix.len() > most {
            return Err(invalid(format!(
                "collection_prefix is {prefix:?}, {} bytes; it may have at most {most}",
                prefix.len()
            )));
        }
        let first_is_plain = prefix
            .bytes()
            .next()
            .is_none_or(|b| b.is_ascii_alphanumeric() || b == b'_');
        let all_allowed = prefix
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !first_is_plain || !all_allowed || is_reserved(&prefix) {
            return Err(invalid(format!(
                "collection_prefix is {prefix:?}; it may have ASCII letters, digits, '-', '_' and \
                 '.', and must begin with a letter, a digit or '_'; it may not begin with \
                 \"system.\" or contain \".system.\""
            )));
        }
        Ok(Self(prefix))
    }

    /// The name of the queue's collection.
    pub(crate) fn collection(&self, queue: &QueueName) -> Result<String, StoreError> {
        let name = format!("{}{}", self.0, queue.as_str());
        if is_reserved(&name) {
            return Err(StoreError::Name(format!(
                "the queue `{queue}` needs the collection `{name}`; the server reserves names that \
                 begin with \"system.\" or contain \".system.\", so use another queue name"
            )));
        }
        Ok(name)
    }

    /// A regular expression for the collections' names; `None` if every name matches.
    pub(crate) fn pattern(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| format!("^{}", self.0.replace('.', "\\.")))
    }

    /// The queue of a collection; `None` if it is not a queue's.
    pub(crate) fn queue(&self, collection: &str) -> Option<QueueName> {
        let queue = QueueName::new(collection.strip_prefix(&self.0)?).ok()?;
        self.collection(&queue).is_ok().then_some(queue)
    }
}

/// Whether the server keeps collections of this name for itself. It refuses to write to them.
fn is_reserved(collection: &str) -> bool {
    collection.starts_with("system.") || collection.contains(".system.")
}

/// Checks the name of a database.
pub(crate) fn check_database(name: &str) -> Result<(), Error> {
    let all_allowed = name
        .chars()
        .all(|c| !c.is_whitespace() && !c.is_control() && !"/\\.\"$*<>:|?".contains(c));
    if name.is_empty() || name.len() > MAX_DATABASE_BYTES || !all_allowed {
        return Err(invalid(format!(
            "the database name is {name:?}; it must have 1 to {MAX_DATABASE_BYTES} bytes, without \
             white space and /\\.\"$*<>:|?"
        )));
    }
    // The server's own. Names that differ only in case are the same to it.
    let is_servers = |servers: &&str| servers.eq_ignore_ascii_case(name);
    if ["admin", "config", "local"].iter().any(is_servers) {
        return Err(invalid(format!(
            "the database name is {name:?}; the server keeps `admin`, `config` and `local` for \
             itself, so use another database"
        )));
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::invalid("connect", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).expect("a queue name")
    }

    #[test]
    fn a_collection_is_its_prefix_and_queue() {
        for prefix in ["", "queue.", "a-1_2.", "_"] {
            let prefix = Prefix::new("shop", prefix.to_owned()).expect("a prefix");
            let name = prefix.collection(&queue("mail.out")).expect("a name");
            assert_eq!(prefix.queue(&name), Some(queue("mail.out")));
        }
        let prefix = Prefix::new("shop", "queue.".to_owned()).expect("a prefix");
        assert_eq!(prefix.queue("mail"), None);
        assert_eq!(prefix.queue("queue."), None);
        assert_eq!(prefix.queue("queue.$x"), None);
    }

    #[test]
    fn invalid_names_are_refused() {
        for prefix in [
            "0123456789",
            "system.",
            "a.system.",
            ".a",
            "a$",
            "a b",
            "-a",
            "ä",
        ] {
            let error = Prefix::new("shop", prefix.to_owned()).expect_err(prefix);
            assert_eq!(error.kind(), queue_api::ErrorKind::InvalidInput);
        }
        let longest = "d".repeat(MAX_DATABASE_BYTES);
        assert!(Prefix::new(&longest, "12345678".to_owned()).is_ok());
        assert!(Prefix::new(&longest, "123456789".to_owned()).is_err());
        for database in [
            "",
            "a.b",
            "a b",
            "a/b",
            "a$",
            &"d".repeat(64),
            "local",
            "Admin",
        ] {
            assert!(check_database(database).is_err(), "{database}");
        }
    }

    #[test]
    fn reserved_collections_are_not_queues() {
        let prefix = Prefix::new("shop", String::new()).expect("a prefix");
        assert!(prefix.collection(&queue("system.users")).is_err());
        assert_eq!(prefix.queue("system.users"), None);
        let prefix = Prefix::new("shop", "sys".to_owned()).expect("a prefix");
        assert!(prefix.collection(&queue("tem.users")).is_err());
        assert!(prefix.collection(&queue("tem")).is_ok());
        let prefix = Prefix::new("shop", "a.sys".to_owned()).expect("a prefix");
        assert!(prefix.collection(&queue("tem.b")).is_err());
        assert_eq!(prefix.queue("a.system.b"), None);
    }
}
