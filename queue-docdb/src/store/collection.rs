//! One queue's collection, and the commands on it.

use std::sync::Arc;

use mongodb::{
    Collection, Database,
    bson::{DateTime, Document, RawDocument, RawDocumentBuf, doc},
    options::{FindOptions, Hint},
};

use crate::{
    connect::amazon::Engine,
    state::queues::QueueState,
    store::{
        clock::Time,
        error::StoreError,
        index::Index,
        retry::{Deadline, Retries},
        write_reply,
    },
    watch::Watch,
};

/// How often a call makes a dropped index again. Another process may delete the queue meanwhile.
const MOST_RESTORES: u32 = 5;

/// A queue's collection for one call, with what this instance knows about the queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueCollection {
    pub(crate) database: Database,
    pub(crate) messages: Collection<RawDocumentBuf>,
    /// When the call must end.
    pub(crate) deadline: Deadline,
    pub(crate) time: Arc<Time>,
    pub(crate) state: Arc<QueueState>,
    /// The most messages of an entry.
    pub(crate) entry_size: usize,
    pub(crate) engine: Engine,
    pub(crate) access: Access,
    /// None if waits poll.
    pub(crate) watch: Option<Arc<Watch>>,
}

/// What a call may do to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// The same without hints, because an index is missing or does not serve. It is slow.
    Scan,
    /// Also restores what the queue has lost.
    Write,
}

/// The size of a reply of the server.
pub(crate) const REPLY_BYTES: usize = 16 << 20;

/// What to find.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    filter: Document,
    options: FindOptions,
}

impl Query {
    /// At most `limit` documents, found by the index on these keys and in its order.
    pub(crate) fn in_order_of(keys: Document, filter: Document, limit: usize) -> Self {
        let mut query = Self::by_ids(filter, limit);
        query.options.sort = Some(keys.clone());
        query.options.hint = Some(Hint::Keys(keys));
        query
    }

    /// At most `limit` documents, found by `_id`. Such filters need no hint.
    pub(crate) fn by_ids(filter: Document, limit: usize) -> Self {
        let mut options = FindOptions::default();
        options.limit = Some(i64::try_from(limit).unwrap_or(i64::MAX));
        // One more than the limit, so that the server closes the cursor with the first batch.
        // The smallest instances of DocumentDB have six cursors.
        options.batch_size = Some(u32::try_from(limit).unwrap_or(u32::MAX).min(1 << 30) + 1);
        Self { filter, options }
    }

    pub(crate) fn into_parts(self) -> (Document, FindOptions) {
        (self.filter, self.options)
    }

    /// Skips this many documents.
    pub(crate) fn skipping(mut self, documents: usize) -> Self {
        self.options.skip = (documents > 0).then_some(documents as u64);
        self
    }

    /// Only these fields.
    pub(crate) fn with_projection(mut self, projection: Document) -> Self {
        self.options.projection = Some(projection);
        self
    }
}

impl QueueCollection {
    pub(crate) async fn now(&self) -> DateTime {
        self.time.now(self.deadline.left() / 3).await
    }

    /// The same collection for the next step of a long call. Each step has the operation timeout.
    pub(crate) fn next_step(&self) -> Self {
        self.within(self.deadline.again())
    }

    pub(crate) fn within(&self, deadline: Deadline) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// Finds documents, and returns what `read` makes of each, in order.
    pub(crate) async fn find<T: Send>(
        &self,
        query: Query,
        read: impl Fn(&RawDocument) -> T + Send + Sync,
    ) -> Result<Vec<T>, StoreError> {
        Ok(self.find_within(usize::MAX, query, read).await?.0)
    }

    /// Finds documents up to about `max_bytes`, and returns what `read` makes of each, in order,
    /// and whether these are all.
    pub(crate) async fn find_within<T: Send>(
        &self,
        max_bytes: usize,
        mut query: Query,
        read: impl Fn(&RawDocument) -> T + Send + Sync,
    ) -> Result<(Vec<T>, bool), StoreError> {
        let mut retries = self.deadline.retries();
        let mut restores_left = match self.access {
            Access::Write => MOST_RESTORES,
            Access::Read | Access::Scan => 0,
        };
        if self.access == Access::Scan {
            query.options.hint = None;
        }
        loop {
            let finding = self.find_once(&retries, max_bytes, query.clone(), &read);
            match finding.await {
                Ok(found) => return Ok(found),
                Err(error) if query.options.hint.is_none() || !error.is_missing_index() => {
                    retries.after(error).await?;
                }
                // Another process deleted the queue, upgraded it to another version, or dropped the
                // index.
                Err(_) if restores_left > 0 => {
                    self.state.knowledge.forget();
                    self.restore().await?;
                    restores_left -= 1;
                }
                // Slow, but right. A client with the strict Stable API may not name a sparse index.
                Err(_) => {
                    self.state.knowledge.forget();
                    self.check_now().await?;
                    query.options.hint = None;
                }
            }
        }
    }

    pub(crate) async fn find_once<T: Send>(
        &self,
        tries: &Retries,
        max_bytes: usize,
        query: Query,
        read: &(impl Fn(&RawDocument) -> T + Send + Sync),
    ) -> Result<(Vec<T>, bool), StoreError> {
        let found = self.messages.find(query.filter).with_options(query.options);
        let mut cursor = tries.run(found).await?;
        let (mut all, mut bytes) = (Vec::new(), 0_usize);
        // A batch ends at 16 MiB, so there may be more than one.
        while tries.run(cursor.advance()).await? {
            let document = cursor.current();
            all.push(read(document));
            let size = document.as_bytes().len();
            bytes = bytes.saturating_add(size);
            // Another one of this size would not fit, and may cost a whole batch.
            if bytes.saturating_add(size) > max_bytes {
                return Ok((all, false));
            }
        }
        Ok((all, true))
    }

    /// Sends an update or a delete, and returns how many documents it matched.
    ///
    /// A command that certainly had no effect is sent again. After any other error, the caller
    /// must find out what was done.
    pub(crate) async fn write(&self, command: Document) -> Result<u64, StoreError> {
        let mut retries = self.deadline.retries();
        loop {
            let sent = self.database.run_command(command.clone());
            let reply = self.deadline.run(sent).await;
            match reply.and_then(|reply| write_reply::matched(&reply)) {
                Err(error) if error.did_nothing() => retries.after(error).await?,
                answer => return answer,
            }
        }
    }

    /// Sends update statements that may take effect twice, until the server answers. Returns how many
    /// documents the last ones matched. They need a hint, as in [`write_command`](Self::write_command).
    pub(crate) async fn update_repeatedly(
        &self,
        statements: Vec<Document>,
    ) -> Result<u64, StoreError> {
        let command = self.command("update", statements);
        self.run(command, write_reply::matched).await
    }

    /// Sends a command that may be repeated after any error, until `read` can read a reply.
    pub(crate) async fn run<T>(
        &self,
        command: Document,
        read: impl Fn(&Document) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut retries = self.deadline.retries();
        loop {
            let reply = retries
                .run(self.database.run_command(command.clone()))
                .await;
            match reply.and_then(|reply| read(&reply)) {
                Err(error) => retries.after(error).await?,
                read => return read,
            }
        }
    }

    /// The number of documents that a majority has and that match the filter, which must use `_id`.
    ///
    /// A failover may undo what a find read. It does not undo what this write matched.
    pub(crate) async fn held_by_majority(&self, filter: Document) -> Result<u64, StoreError> {
        self.matched_by_majority([(filter, doc! { "_id": 1 })])
            .await
    }

    /// The same for filters with the keys of an index by which each finds its documents.
    pub(crate) async fn matched_by_majority(
        &self,
        filters: impl IntoIterator<Item = (Document, Document)>,
    ) -> Result<u64, StoreError> {
        let filters = filters.into_iter();
        let statements = filters.map(|(filter, index)| unchanged(filter, index));
        let mut statements: Vec<Document> = statements.collect();
        match self.update_repeatedly(statements.clone()).await {
            // There is no such queue, or an operator has dropped the index.
            Err(error) if error.is_missing_index() => {
                let by_id = |it: &mut Document| drop(it.insert("hint", doc! { "_id": 1 }));
                statements.iter_mut().for_each(by_id);
                self.update_repeatedly(statements).await
            }
            matched => matched,
        }
    }

    /// Whether a majority has this index. A failover does not undo it then.
    pub(crate) async fn is_held_by_majority(&self, index: Index) -> Result<bool, StoreError> {
        let keys = index.keys().into_iter();
        let nothing = keys.map(|(key, _)| (key, "nothing".into())).collect();
        match self
            .update_repeatedly(vec![unchanged(nothing, index.keys())])
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing_index() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The statements as one command. The driver's own calls send one statement each.
    ///
    /// DocumentDB documents no hint for a delete. So its filters must use `_id`, and no other indexed
    /// field.
    pub(crate) fn command(&self, name: &str, statements: Vec<Document>) -> Document {
        doc! {
            name: self.messages.name(),
            format!("{name}s"): statements,
            // The statements are independent of each other.
            "ordered": false,
            "writeConcern": { "w": "majority" },
        }
    }
}

/// A statement that changes nothing, and counts what the filter matches. The keys are those of an index by
/// which it finds its documents.
fn unchanged(filter: Document, index: Document) -> Document {
    doc! { "q": filter, "u": { "$unset": { "nothing": "" } }, "multi": true, "hint": index }
}
