//! One queue's collection: every command that this crate sends for a queue passes here.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use mongodb::{
    Collection, Database,
    bson::{Bson, DateTime, Document, RawDocument, RawDocumentBuf, doc},
    options::{FindOptions, Hint},
};

use crate::{
    clock::Time,
    error::{Effect, Refusal, StoreError},
    index::Index,
    lanes::Lanes,
    queues::QueueState,
    retry::Deadline,
    watch::Watch,
};

/// A queue's collection as one call uses it, with what this instance knows about it.
#[derive(Clone, Debug)]
pub(crate) struct QueueCollection {
    pub(crate) database: Database,
    pub(crate) messages: Collection<RawDocumentBuf>,
    pub(crate) timeout: Duration,
    /// When the call has to be done.
    pub(crate) deadline: Deadline,
    pub(crate) time: Arc<Time>,
    pub(crate) state: Arc<QueueState>,
    pub(crate) lanes: Lanes,
    /// None where the builder was told to do without.
    pub(crate) watch: Option<Arc<Watch>>,
}

/// How much a reply of the server holds.
pub(crate) const REPLY_BYTES: usize = 16 << 20;

/// What to find.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    filter: Document,
    options: FindOptions,
}

impl Query {
    /// At most `limit` documents, in order of `index`, found by it.
    pub(crate) fn in_order_of(index: Index, filter: Document, limit: usize) -> Self {
        let mut query = Self::unordered(filter, limit);
        query.options.sort = Some(index.keys());
        query.options.hint = Some(Hint::Keys(index.keys()));
        query
    }

    /// The documents with these `_id`s, for which filters need no hint.
    pub(crate) fn by_ids(filter: Document, ids: usize) -> Self {
        Self::unordered(filter, ids)
    }

    fn unordered(filter: Document, limit: usize) -> Self {
        let mut options = FindOptions::default();
        options.limit = Some(i64::try_from(limit).unwrap_or(i64::MAX));
        // One more than the limit, so that the server ends the cursor with the first batch:
        // small instances of DocumentDB have six cursors in all.
        options.batch_size = Some(u32::try_from(limit).unwrap_or(u32::MAX).min(1 << 30) + 1);
        Self { filter, options }
    }

    pub(crate) fn into_parts(self) -> (Document, FindOptions) {
        (self.filter, self.options)
    }

    /// Only these fields.
    pub(crate) fn with_projection(mut self, projection: Document) -> Self {
        self.options.projection = Some(projection);
        self
    }
}

impl QueueCollection {
    pub(crate) async fn now(&self) -> DateTime {
        self.time.now(self.deadline.left() / 2).await
    }

    /// The same for another step of a call that may take as long as there is work: each step
    /// has the operation timeout.
    pub(crate) fn next_step(&self) -> Self {
        Self {
            deadline: Deadline::after(self.timeout),
            ..self.clone()
        }
    }

    /// What `read` makes of each document found, in order.
    pub(crate) async fn find<T: Send>(
        &self,
        query: Query,
        read: impl Fn(&RawDocument) -> T + Send + Sync,
    ) -> Result<Vec<T>, StoreError> {
        Ok(self.find_within(usize::MAX, query, read).await?.0)
    }

    /// The same with the first documents only, when all of them have more than about
    /// `max_bytes`; and whether that are all.
    pub(crate) async fn find_within<T: Send>(
        &self,
        max_bytes: usize,
        query: Query,
        read: impl Fn(&RawDocument) -> T + Send + Sync,
    ) -> Result<(Vec<T>, bool), StoreError> {
        let mut retries = self.deadline.retries();
        let mut is_restored = false;
        loop {
            let error = match self.find_once(max_bytes, query.clone(), &read).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if query.options.hint.is_some() && error.is_missing_index() && !is_restored {
                self.restore_indexes().await?;
                is_restored = true;
            } else {
                retries.after(error).await?;
            }
        }
    }

    pub(crate) async fn find_once<T: Send>(
        &self,
        max_bytes: usize,
        query: Query,
        read: &(impl Fn(&RawDocument) -> T + Send + Sync),
    ) -> Result<(Vec<T>, bool), StoreError> {
        let found = self.messages.find(query.filter).with_options(query.options);
        let mut cursor = self.deadline.run(found).await?;
        let (mut all, mut bytes) = (Vec::new(), 0_usize);
        // A batch ends at 16 MiB whatever its size in documents, so there may be more of them.
        while self.deadline.run(cursor.advance()).await? {
            let document = cursor.current();
            all.push(read(document));
            let size = document.as_bytes().len();
            bytes = bytes.saturating_add(size);
            // Another one like this would not fit, and to ask for it may bring a whole batch.
            if bytes.saturating_add(size) > max_bytes {
                return Ok((all, false));
            }
        }
        Ok((all, true))
    }

    /// How many documents there are. Without a hint: DocumentDB does not document one for an
    /// aggregate, which is what the driver sends.
    pub(crate) async fn count(&self, filter: Document) -> Result<u64, StoreError> {
        let mut retries = self.deadline.retries();
        loop {
            let sent = self.messages.count_documents(filter.clone());
            match self.deadline.run(sent).await {
                Ok(count) => return Ok(count),
                Err(error) => retries.after(error).await?,
            }
        }
    }

    /// Carries out update statements in one command and says how many documents they matched.
    ///
    /// The driver's own calls take one statement each, and each costs a round trip. All of them name
    /// messages by `_id`, and say by a hint that this is how to find them: the planner may else
    /// take the index on time, and look at every message that is ready.
    ///
    /// What certainly had no effect is tried again; after any other error the caller has to
    /// find out what was done.
    pub(crate) async fn update(&self, statements: Vec<Document>) -> Result<u64, StoreError> {
        self.write("update", "updates", by_id(statements)).await
    }

    /// The same, and never tried again: for statements with a time in them that must be fresh.
    pub(crate) async fn update_once(&self, statements: Vec<Document>) -> Result<u64, StoreError> {
        self.write_once(self.command("update", "updates", by_id(statements)))
            .await
    }

    /// Carries out delete statements in one command and says how many documents are gone; as
    /// for [`update`](Self::update). They take no hint, because DocumentDB does not document one:
    /// so their filters must be about `_id` and nothing else that has an index.
    pub(crate) async fn delete(&self, statements: Vec<Document>) -> Result<u64, StoreError> {
        self.write("delete", "deletes", statements).await
    }

    /// How many documents a majority has as these filters say, which name each by its `_id`.
    ///
    /// A failover may undo what a find showed, but not what this matched.
    pub(crate) async fn held_by_majority(
        &self,
        filters: impl IntoIterator<Item = Document>,
    ) -> Result<u64, StoreError> {
        let statements: Vec<Document> = filters.into_iter().map(unchanged).collect();
        if statements.is_empty() {
            return Ok(0);
        }
        let mut retries = self.deadline.retries();
        loop {
            // It changes nothing, so it may be sent again whatever the last one did.
            match self.update(statements.clone()).await {
                Err(error) => retries.after(error).await?,
                held => return held,
            }
        }
    }

    async fn write(
        &self,
        command: &str,
        statements_field: &str,
        statements: Vec<Document>,
    ) -> Result<u64, StoreError> {
        let command = self.command(command, statements_field, statements);
        let mut retries = self.deadline.retries();
        loop {
            match self.write_once(command.clone()).await {
                Err(error) if error.effect() == Effect::None => retries.after(error).await?,
                answer => return answer,
            }
        }
    }

    async fn write_once(&self, command: Document) -> Result<u64, StoreError> {
        let sent = self.database.run_command(command);
        read_write_reply(&self.deadline.run(sent).await?)
    }

    fn command(&self, name: &str, statements_field: &str, statements: Vec<Document>) -> Document {
        doc! {
            name: self.messages.name(),
            statements_field: statements,
            // The statements are about different documents, so one that fails says nothing
            // about the others.
            "ordered": false,
            "writeConcern": { "w": "majority" },
        }
    }
}

/// A statement that changes nothing, and counts what the filter matches.
pub(crate) fn unchanged(filter: Document) -> Document {
    doc! { "q": filter, "u": { "$unset": { "nothing": "" } }, "multi": true }
}

fn by_id(mut statements: Vec<Document>) -> Vec<Document> {
    for statement in &mut statements {
        statement.insert("hint", doc! { "_id": 1 });
    }
    statements
}

/// The number of documents in the reply to an update or a delete. Statements that were
/// refused are in there too: the driver does not look for them.
pub(crate) fn read_write_reply(reply: &Document) -> Result<u64, StoreError> {
    if let Ok(errors) = reply.get_array("writeErrors")
        && let Some(Bson::Document(first)) = errors.first()
    {
        return Err(StoreError::Refused(refusal(first)));
    }
    let matched = integer(reply.get("n"))
        .and_then(|n| u64::try_from(n).ok())
        .ok_or_else(|| StoreError::Unreadable(format!("no count in {reply}")))?;
    match reply.get_document("writeConcernError") {
        Ok(failure) => Err(StoreError::Unconfirmed {
            matched,
            reason: refusal(failure),
        }),
        Err(_) => Ok(matched),
    }
}

pub(crate) fn refusal(failure: &Document) -> Refusal {
    Refusal {
        code: integer(failure.get("code")).map_or(0, |code| code as i32),
        message: failure.get_str("errmsg").unwrap_or_default().to_owned(),
    }
}

pub(crate) fn integer(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

/// The driver's answer, or the news that it took longer than `timeout`.
///
/// Dropping the driver's future is safe: it closes the connection that waits for the answer.
pub(crate) async fn run<T>(
    timeout: Duration,
    call: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(timeout, call.into_future()).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::TimedOut(timeout)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_whatever_the_type_of_their_numbers() {
        assert_eq!(read_write_reply(&doc! { "ok": 1, "n": 3_i32 }).unwrap(), 3);
        assert_eq!(read_write_reply(&doc! { "ok": 1, "n": 3_i64 }).unwrap(), 3);
        assert_eq!(read_write_reply(&doc! { "ok": 1, "n": 3.0 }).unwrap(), 3);
        assert!(read_write_reply(&doc! { "ok": 1 }).is_err());
    }

    #[test]
    fn refused_statements_are_errors() {
        let error = doc! { "index": 0, "code": 13, "errmsg": "not you" };
        let errors = doc! { "ok": 1, "n": 1, "writeErrors": [error.clone()] };
        let concern = doc! { "ok": 1, "n": 1, "writeConcernError": error };
        let said = |refusal: Refusal| {
            assert_eq!((refusal.code, refusal.message.as_str()), (13, "not you"));
        };
        match read_write_reply(&errors) {
            Err(StoreError::Refused(refusal)) => said(refusal),
            other => panic!("{other:?}"),
        }
        match read_write_reply(&concern) {
            Err(StoreError::Unconfirmed { matched: 1, reason }) => said(reason),
            other => panic!("{other:?}"),
        }
    }
}
