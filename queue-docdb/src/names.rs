//! Names of databases and collections.

use queue_api::{Error, QueueName};

use crate::{
    connect::{amazon::Engine, operation::invalid},
    store::error::StoreError,
};

const MAX_DATABASE_BYTES: usize = 63;

/// The longest `database.collection`, in bytes. DocumentDB 5.0 and MongoDB 4.4 allow 255. A name that
/// works on one server shall work on all.
///
/// <https://docs.aws.amazon.com/documentdb/latest/developerguide/limits.html>
const MAX_NAMESPACE_BYTES: usize = 120;

/// The longest collection name of DocumentDB 3.6 and 4.0, in bytes.
const MAX_OLD_COLLECTION_BYTES: usize = 57;

/// What the collections' names begin with. The queue's name follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    prefix: String,
    /// The longest name of a queue, in bytes. At least 1.
    max_queue_bytes: usize,
}

impl Prefix {
    /// Checks that the server allows `prefix`, and that it leaves room for a queue's name.
    pub(crate) fn new(database: &str, prefix: String, engine: Engine) -> Result<Self, Error> {
        let room = MAX_NAMESPACE_BYTES.saturating_sub(database.len() + 1);
        let room = match engine {
            Engine::MongoDb | Engine::DocumentDb => room,
            Engine::DocumentDb4 => room.min(MAX_OLD_COLLECTION_BYTES),
        };
        let max_queue_bytes = room.saturating_sub(prefix.len());
        if max_queue_bytes == 0 {
            return Err(invalid(format!(
                "collection_prefix is {prefix:?}, {} bytes; it may have at most {}, because the \
                 queue's name follows, and a collection name may have at most {room} bytes in the \
                 database {database:?}",
                prefix.len(),
                room.saturating_sub(1)
            )));
        }
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let all_allowed = prefix.bytes().all(is_allowed);
        if !all_allowed || prefix.starts_with(['-', '.']) || is_reserved(&prefix) {
            return Err(invalid(format!(
                "collection_prefix is {prefix:?}; it may have ASCII letters, digits, '-', '_' and \
                 '.', and must begin with a letter, a digit or '_'; it may not begin with \
                 \"system.\" or contain \".system.\""
            )));
        }
        Ok(Self {
            prefix,
            max_queue_bytes,
        })
    }

    /// The name of the queue's collection.
    pub(crate) fn collection(&self, queue: &QueueName) -> Result<String, StoreError> {
        let (prefix, max_queue_bytes) = (&self.prefix, self.max_queue_bytes);
        let bytes = queue.as_str().len();
        if bytes > max_queue_bytes {
            return Err(StoreError::Invalid(format!(
                "the queue name `{queue}` has {bytes} bytes; with this database and the \
                 collection_prefix {prefix:?} it may have at most {max_queue_bytes}"
            )));
        }
        let name = format!("{prefix}{queue}");
        if is_reserved(&name) {
            return Err(StoreError::Invalid(format!(
                "the queue `{queue}` needs the collection `{name}`; the server reserves names that \
                 begin with \"system.\" or contain \".system.\", so use another queue name"
            )));
        }
        Ok(name)
    }

    /// A regular expression for the collections' names.
    pub(crate) fn pattern(&self) -> String {
        format!("^{}", self.prefix.replace('.', "\\."))
    }

    /// The queue of a collection; `None` if it is not a queue's.
    pub(crate) fn queue(&self, collection: &str) -> Option<QueueName> {
        let queue = QueueName::new(collection.strip_prefix(&self.prefix)?).ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix_of(text: &str) -> Prefix {
        Prefix::new("shop", text.to_owned(), Engine::MongoDb).expect("a prefix")
    }

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).expect("a queue name")
    }

    #[test]
    fn a_collection_is_its_prefix_and_queue() {
        for prefix in ["", "queue.", "a-1_2.", "_"] {
            let prefix = prefix_of(prefix);
            let name = prefix.collection(&queue("mail.out")).expect("a name");
            assert_eq!(prefix.queue(&name), Some(queue("mail.out")));
        }
        let prefix = prefix_of("queue.");
        assert_eq!(prefix.queue("mail"), None);
        assert_eq!(prefix.queue("queue."), None);
        assert_eq!(prefix.queue("queue.$x"), None);
    }

    /// The longest names of collections and of queues, in bytes.
    #[test]
    fn a_queue_has_the_room_that_the_database_and_the_prefix_leave() {
        use Engine::{DocumentDb, DocumentDb4, MongoDb};
        for (database, prefix, engine, most) in [
            (4, 6, MongoDb, 109),
            (4, 6, DocumentDb, 109),
            (4, 6, DocumentDb4, 51),
            (33, 6, DocumentDb, 80),
            (34, 6, MongoDb, 79),
            (63, 0, DocumentDb, 56),
            (63, 0, DocumentDb4, 56),
            (62, 0, DocumentDb4, 57),
            (63, 55, MongoDb, 1),
            (1, 56, DocumentDb4, 1),
        ] {
            let (database, text) = ("d".repeat(database), "p".repeat(prefix));
            let longest = |text| Prefix::new(&database, text, engine).expect("a prefix");
            let prefix = longest(text.clone());
            let fits = |bytes: usize| prefix.collection(&queue(&"q".repeat(bytes)));
            let allowed = most.min(QueueName::MAX_BYTES);
            let collection = fits(allowed).expect("it fits");
            assert_eq!(collection, text + &"q".repeat(allowed));
            assert!(database.len() + 1 + collection.len() <= MAX_NAMESPACE_BYTES);
            assert_eq!(prefix.queue(&collection), Some(queue(&"q".repeat(allowed))));
            if most < QueueName::MAX_BYTES {
                let error = fits(most + 1).expect_err("it does not fit").to_string();
                let hint = format!("has {} bytes;", most + 1);
                assert!(error.contains(&hint), "{error}");
                assert!(error.ends_with(&format!("at most {most}")), "{error}");
                let foreign = format!("{collection}q");
                assert_eq!(prefix.queue(&foreign), None, "another program's");
            }
        }
        for (database, prefix, engine) in [(63, 56, MongoDb), (1, 57, DocumentDb4)] {
            let (database, text) = ("d".repeat(database), "p".repeat(prefix));
            let error = Prefix::new(&database, text, engine).expect_err("no room is left");
            let hint = format!("{prefix} bytes; it may have at most {}", prefix - 1);
            assert!(error.to_string().contains(&hint), "{error}");
        }
    }
}
