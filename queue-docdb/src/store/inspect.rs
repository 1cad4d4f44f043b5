//! What is in a queue's collection. Looking changes nothing.
//!
//! A document of the collection has the version of the queue's documents. It makes the collection
//! a queue: it is written last when a queue is made, so a queue has its indexes. Two versions of
//! this library that mean different things by a document must not work on the same queue. Its
//! `_id` is not a string, so no message can have it. It has no indexed field, so no claim, count
//! or purge finds it.

use mongodb::bson::{Document, RawDocument, doc};
use queue_api::ErrorKind;

use crate::{
    document::{
        decode,
        fields::{BORN, IDS},
    },
    state::knowledge::Indexes,
    store::{
        codes::NAMESPACE_NOT_FOUND,
        collection::{Query, QueueCollection},
        error::StoreError,
        index::Index,
    },
};

/// What this version of the library writes, and the only one that it reads.
///
/// A version that changes what documents mean raises this, and changes the keys of the claim
/// index with it. Instances that still trust the old version then miss the index that their hints
/// name, and look at the version again before they make it anew.
const VERSION: u32 = 3;

/// Of the version document: whether messages are found by `_id`, and there is no unique index.
const KEYED: &str = "keyed";

/// Of the version document: when the queue was deleted.
pub(crate) const DELETED: &str = "deleted";

/// What a collection holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// There is no collection.
    Missing,
    /// No document.
    Empty,
    /// Messages without a version: an instance stored them just after another deleted the queue.
    Unversioned { is_keyed: bool },
    /// A queue of this version.
    Queue,
    /// One that was deleted. It may have messages of a call that did not know.
    Deleted,
    /// A queue of this version number, or of an unknown one.
    OtherVersion(Option<u32>),
    /// Another program's. The text says what it is.
    Foreign(&'static str),
}

impl QueueCollection {
    /// Looks at the collection, unless this instance has found a queue there recently.
    ///
    /// # Errors
    /// The collection is another program's, or a queue of another version.
    pub(crate) async fn check(&self) -> Result<Contents, StoreError> {
        match self.state.knowledge.indexes() {
            Some(_) => Ok(Contents::Queue),
            None => self.check_now().await,
        }
    }

    /// The same, but always looks.
    pub(crate) async fn check_now(&self) -> Result<Contents, StoreError> {
        let collection = self.messages.name();
        match self.inspect().await? {
            Contents::OtherVersion(version) => Err(StoreError::Invalid(format!(
                "the queue's documents are of schema {}, this version of queue-docdb knows \
                 schema {VERSION} only: use one that knows theirs",
                version.map_or("unknown".to_owned(), |version| version.to_string()),
            ))),
            Contents::Foreign(what) => Err(StoreError::Invalid(format!(
                "the collection `{collection}` {what}, so it is not a queue; use another queue \
                 name or collection_prefix"
            ))),
            other => Ok(other),
        }
    }

    /// Whether finds that name an index see all messages. If not, they must not name one.
    pub(crate) async fn indexes_serve(&self) -> Result<bool, StoreError> {
        let contents = self.check().await?;
        let known = self.state.knowledge.indexes();
        if known >= Some(Indexes::Listed) || contents != Contents::Queue {
            return Ok(true);
        }
        let existing = match self.indexes().await {
            Ok(indexes) => indexes,
            // The user may not look. The version says that the indexes were made.
            Err(error) if error.kind() == ErrorKind::Denied => return Ok(true),
            Err(error) => return Err(error),
        };
        let serves = |index: Index| index.is_among(&existing, self.messages.name());
        let all_serve = Index::of_queue(self.state.knowledge.is_keyed())
            .all(|index| matches!(serves(index), Ok(true)));
        if all_serve {
            self.state.knowledge.learn_indexes(Indexes::Listed);
        }
        Ok(all_serve)
    }

    pub(crate) async fn inspect(&self) -> Result<Contents, StoreError> {
        if let Some(versioned) = self.version().await? {
            return Ok(versioned);
        }
        let Some(described) = self.description().await? else {
            return Ok(Contents::Missing);
        };
        if let Some(what) = peculiarity(&described) {
            return Ok(Contents::Foreign(what));
        }
        // The first one tells whose collection it is. Another instance may have made the queue
        // since the look at the version. An enqueue that created the collection stored a message.
        let read = |found: &RawDocument| {
            let id = found.get_document("_id");
            if id.is_ok_and(|id| id.get_str("queue-docdb") == Ok("schema")) {
                None
            } else if decode::is_entry(found) {
                let is_keyed = found.get_i64(BORN).is_ok();
                Some(Contents::Unversioned { is_keyed })
            } else {
                Some(Contents::Foreign("has documents of another program"))
            }
        };
        match self.first(Document::new(), read).await? {
            None => Ok(Contents::Empty),
            Some(None) => Ok(self.version().await?.unwrap_or(Contents::Empty)),
            Some(Some(contents)) => Ok(contents),
        }
    }

    async fn version(&self) -> Result<Option<Contents>, StoreError> {
        let read = |found: &RawDocument| {
            let is_keyed = found.get_bool(KEYED).unwrap_or(false);
            let contents = match decode::count(found, "version") {
                Some(VERSION) if found.get_datetime(DELETED).is_ok() => Contents::Deleted,
                Some(VERSION) => Contents::Queue,
                other => Contents::OtherVersion(other),
            };
            (contents, is_keyed)
        };
        let found = self.first(doc! { "_id": id() }, read).await?;
        Ok(found.map(|(contents, is_keyed)| {
            match contents {
                Contents::Queue => self.state.knowledge.learn_queue(is_keyed),
                // Of others nothing is remembered: a call that enqueues must look.
                _ => self.state.knowledge.learn_keyed(is_keyed),
            }
            contents
        }))
    }

    /// What the server says about the collection; empty if this user may not ask.
    async fn description(&self) -> Result<Option<Document>, StoreError> {
        let filter = doc! { "name": self.messages.name() };
        let command = doc! { "listCollections": 1, "filter": filter, "cursor": {} };
        match self.run(command, first_batch).await {
            Ok(described) => Ok(described.into_iter().next()),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(Some(Document::new())),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a document that the filter selects.
    pub(crate) async fn has(&self, filter: Document) -> Result<bool, StoreError> {
        Ok(self.first(filter, |_| ()).await?.is_some())
    }

    /// The first document that the filter selects.
    async fn first<T: Send>(
        &self,
        filter: Document,
        read: impl Fn(&RawDocument) -> T + Send + Sync,
    ) -> Result<Option<T>, StoreError> {
        let query = Query::by_ids(filter, 1);
        let mut retries = self.deadline.retries();
        loop {
            match self
                .find_once(&retries, usize::MAX, query.clone(), &read)
                .await
            {
                Ok((found, _)) => return Ok(found.into_iter().next()),
                Err(error) => retries.after(error).await?,
            }
        }
    }

    /// The collection's indexes, with their options; none if it is missing.
    pub(crate) async fn indexes(&self) -> Result<Vec<Document>, StoreError> {
        let command = doc! { "listIndexes": self.messages.name() };
        match self.run(command, first_batch).await {
            Err(error) if error.has_code(NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
            indexes => indexes,
        }
    }
}

/// The document that has the version.
pub(crate) fn version_document(is_keyed: bool) -> Document {
    // The index on ids is unique: a second document without any would be refused.
    doc! { "_id": id(), IDS: [id()], "version": i64::from(VERSION), KEYED: is_keyed }
}

/// The `_id` of the version document.
pub(crate) fn id() -> Document {
    doc! { "queue-docdb": "schema" }
}

/// Why no queue can be in this collection, even if it has no document.
fn peculiarity(described: &Document) -> Option<&'static str> {
    let is_capped = described
        .get_document("options")
        .and_then(|options| options.get_bool("capped"));
    match described.get_str("type") {
        Ok("view") => Some("is a view"),
        Ok("timeseries") => Some("is a time series"),
        Ok("collection") | Err(_) => is_capped.unwrap_or(false).then_some("is capped"),
        Ok(_) => Some("is of an unknown type"),
    }
}

/// The documents of a reply of few. Lists of collections with one name and of indexes fit into one batch.
pub(crate) fn first_batch(reply: &Document) -> Result<Vec<Document>, StoreError> {
    let cursor = reply.get_document("cursor");
    let Ok(batch) = cursor.and_then(|cursor| cursor.get_array("firstBatch")) else {
        return Err(StoreError::Unreadable(format!("no batch in {reply}")));
    };
    Ok(batch
        .iter()
        .filter_map(|each| each.as_document().cloned())
        .collect())
}
