//! The queues of the database, or one of them.

use futures::{StreamExt, stream};
use queue_api::QueueName;
use queue_docdb::{
    DocDbBackend,
    mongodb::{
        Database,
        bson::{Document, doc},
    },
};

use super::check::Check;
use crate::{
    cli::What,
    connect::{Connection, collections_of},
    depth::contents,
    failure::Failure,
    find_queue::must_exist,
    output::count,
};

/// How many other databases are looked into.
const MOST_DATABASES: usize = 100;

/// How many collections with other prefixes are looked into, and how many are named.
const MOST_COLLECTIONS: usize = 100;
const MOST_NAMES: usize = 5;

/// Calls at a time.
const CALLS: usize = 4;

/// That there are queues at all: a wrong database looks like an empty one.
pub(super) async fn all(connection: &Connection, database: &Database) -> Check {
    const NAME: &str = "queues";
    let queues = match connection.admin.list_queues().await {
        Ok(queues) => queues,
        Err(error) => return Check::failed(NAME, format!("{error:#}")),
    };
    let (name, prefix) = (database.name(), connection.prefix.as_str());
    if !queues.is_empty() {
        let found = count(queues.len() as u64, "queue");
        return Check::ok(
            NAME,
            format!("{found} in database {name} with prefix {prefix:?}"),
        );
    }
    let text = format!("there are none in database {name} with prefix {prefix:?}");
    let others = elsewhere(database, prefix).await;
    match others.is_empty() {
        true => Check::warning(NAME, text).advise("the first enqueue makes one"),
        false => Check::warning(NAME, text).advise(format!(
            "set --database if you mean one of those that have collections with this prefix: {}",
            others.join(", ")
        )),
    }
}

/// Other databases with such collections, as far as the user may look.
async fn elsewhere(database: &Database, prefix: &str) -> Vec<String> {
    let client = database.client();
    let names = client.list_database_names().await.unwrap_or_default();
    let names = names
        .into_iter()
        .filter(|name| name != database.name())
        .filter(|name| !["admin", "config", "local"].contains(&name.as_str()))
        .take(MOST_DATABASES);
    let looks = stream::iter(names).map(|name| {
        let filter = collections_of(prefix);
        let other = client.database(&name);
        async move {
            let found = other.list_collection_names().filter(filter).await;
            (!found.ok()?.is_empty()).then_some(name)
        }
    });
    let found: Vec<_> = looks.buffered(CALLS).collect().await;
    found.into_iter().flatten().collect()
}

/// Collections of the database that are queues with another prefix, those of this name first.
async fn with_other_prefix(connection: &Connection, queue: &QueueName) -> Vec<String> {
    let database = connection.database();
    let names = database.list_collection_names().await.unwrap_or_default();
    let mut names: Vec<_> = names
        .into_iter()
        .filter(|name| !name.starts_with(&connection.prefix))
        .collect();
    names.sort_by_key(|name| (!name.ends_with(queue.as_str()), name.clone()));
    names.truncate(MOST_COLLECTIONS);
    let looks = stream::iter(names).map(|name| {
        let collection = database.collection::<Document>(&name);
        async move {
            let schema = doc! { "_id": { "queue-docdb": "schema" } };
            collection.find_one(schema).await.ok()?.map(|_| name)
        }
    });
    let found: Vec<_> = looks.buffered(CALLS).collect().await;
    found.into_iter().flatten().take(MOST_NAMES).collect()
}

/// That the queue is there, can be read by this version, and has its indexes.
pub(super) async fn one(connection: &Connection, queue: &QueueName) -> Vec<Check> {
    const NAMES: [&str; 3] = ["queue", "schema", "indexes"];
    let backend: &DocDbBackend = &connection.backend;
    let indexes = match backend.missing_indexes(queue).await {
        Ok(missing) if missing.is_empty() => Check::ok(NAMES[2], "all are there"),
        Ok(missing) => Check::warning(
            NAMES[2],
            format!("the queue lacks {}: its calls are slow", missing.join(", ")),
        )
        .advise("the next enqueue or lease makes them, if its user has the right createIndex"),
        Err(error) => match error.kind() {
            queue_api::ErrorKind::Denied => Check::not_checked(NAMES[2], format!("{error:#}")),
            _ => Check::failed(NAMES[2], format!("{error:#}")),
        },
    };
    let stats = match connection.admin.stats(queue).await {
        Ok(stats) => stats,
        Err(error) => {
            return vec![
                Check::failed(NAMES[0], format!("{error:#}")),
                Check::not_checked(NAMES[1], "the queue cannot be read"),
                indexes,
            ];
        }
    };
    if let Err(Failure { text, .. }) = must_exist(connection, queue).await {
        let other = "there is no such queue";
        let make = format!("`queuectl enqueue {queue} --create` makes one");
        let others = with_other_prefix(connection, queue).await;
        let advice = match others.is_empty() {
            true => make,
            false => format!(
                "set --prefix if you mean one of the queues with another one: {}; {make}",
                others.join(", ")
            ),
        };
        return vec![
            Check::failed(NAMES[0], text).advise(advice),
            Check::not_checked(NAMES[1], other),
            Check::not_checked(NAMES[2], other),
        ];
    }
    let contents = contents(&stats, What::All);
    vec![
        Check::ok(NAMES[0], format!("{queue} has {contents}")),
        Check::ok(NAMES[1], "the one that this version reads and writes"),
        indexes,
    ]
}
