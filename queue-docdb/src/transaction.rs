//! Enqueue and ack inside a transaction of the caller's.

use std::collections::{HashMap, HashSet};

use mongodb::{
    Client, ClientSession,
    bson::{Document, RawDocument, RawDocumentBuf, doc},
    error::ErrorKind as DriverKind,
    options::{ReadConcern, ReadPreference, SelectionCriteria, TransactionOptions, WriteConcern},
};
use queue_api::{
    EnqueueOutcome, LeaseOutcome, NewMessage, QueueName, QueueTransaction, Receipt, Result,
    async_trait,
};

use crate::{
    ack::deletions,
    backend::DocDbBackend,
    codes::DUPLICATE_KEY,
    collection::{Query, QueueCollection},
    document,
    enqueue::first_part,
    error::{StoreError, during},
    insert::read_insert_reply,
    receipt::ParsedReceipt,
    retry::{Deadline, Retries},
};

impl DocDbBackend {
    /// The driver's client, for the application's own collections and for sessions whose
    /// transactions [`in_transaction`](Self::in_transaction) takes part in.
    pub fn client(&self) -> &Client {
        self.database().client()
    }

    /// A session whose transactions read a snapshot from the primary and commit to a majority,
    /// whatever the client's options are.
    ///
    /// It has no causal consistency: DocumentDB refuses that after a transaction's first write.
    ///
    /// A session that you start yourself commits with the write concern of the client or of the
    /// transaction. Use `majority`; otherwise a failover may undo a commit.
    ///
    /// # Errors
    /// [`Unavailable`](queue_api::ErrorKind::Unavailable): no server answered.
    pub async fn start_session(&self) -> Result<ClientSession> {
        self.check_runtime().map_err(during("start session"))?;
        let mut transactions = TransactionOptions::default();
        transactions.write_concern = Some(WriteConcern::majority());
        transactions.read_concern = Some(ReadConcern::snapshot());
        transactions.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let starting = self
            .client()
            .start_session()
            .causal_consistency(false)
            .default_transaction_options(transactions);
        Deadline::after(self.timeout())
            .run(starting)
            .await
            .map_err(during("start session"))
    }

    /// Makes the queue's collection and indexes now, if this instance has not done so.
    ///
    /// The first enqueue does it by itself. In a transaction, call this before: a transaction does
    /// not see a queue that was made after it began, so its enqueue gets a retryable error.
    ///
    /// # Errors
    /// [`Denied`](queue_api::ErrorKind::Denied): the user may not make collections or indexes.
    pub async fn prepare(&self, queue: &QueueName) -> Result<()> {
        let queue = self.collection("prepare", queue)?;
        queue.prepare().await.map_err(during("prepare"))
    }

    /// Takes part in the transaction that is under way in `session`: what handles enqueue and ack
    /// through this happens when the caller commits, together with the caller's own writes, or
    /// not at all. So an ack and the enqueue of what comes next are one step.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use queue_api::{NewMessage, Queue, Receipt, LeaseOutcome};
    /// # use queue_docdb::DocDbBackend;
    /// # use mongodb::bson::{Document, doc};
    /// # async fn example(backend: DocDbBackend, receipt: Receipt)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let orders = Queue::new(Arc::new(backend.clone()), "orders")?;
    /// let parcels = Queue::new(Arc::new(backend.clone()), "parcels")?;
    /// let shop = backend.client().database("shop");
    /// let mut session = backend.start_session().await?;
    ///
    /// session.start_transaction().await?;
    /// shop.collection::<Document>("invoices")
    ///     .insert_one(doc! { "order": 7, "sum": 12.5 })
    ///     .session(&mut session)
    ///     .await?;
    /// let mut transaction = backend.in_transaction(&mut session);
    /// let acked = orders.ack_in(&mut transaction, &[receipt]).await?;
    /// parcels.enqueue_in(&mut transaction, &[NewMessage::new("order 7")]).await?;
    /// match acked[0] {
    ///     LeaseOutcome::Applied => session.commit_transaction().await?,
    ///     // Another consumer may have the order. If so, it does all of this.
    ///     LeaseOutcome::Lost => session.abort_transaction().await?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](queue_api::ErrorKind::InvalidInput), before anything is sent: no transaction
    /// is under way in the session. Call `start_transaction` first, and again after each commit or
    /// abort.
    ///
    /// After any other error, abort the transaction. If the error
    /// [is retryable](queue_api::Error::is_retryable), you can try all of it again from its start.
    /// The error's `source()` is the driver's error, if there is one. The label
    /// `TransientTransactionError`, which the driver's `and_run` needs, is on that.
    ///
    /// # Details
    ///
    /// - Lease before the transaction's first command: it sees what there was then, so the receipt of
    ///   a later lease is `Lost` to it.
    /// - Outcomes are true only if the commit succeeds. Before that, a failover may undo what they
    ///   rest on: after an abort, `Lost` and `Duplicate` prove nothing.
    /// - If the answer to the commit was lost, repeat the commit. The driver does so once.
    /// - A consumer may be slow to notice: it is woken by a change stream or when it looks next.
    /// - A transaction holds what it acked. A call that acks, extends or purges the same messages
    ///   waits for it or gets a retryable error.
    /// - DocumentDB allows a transaction one minute and 32 MB of changes, and has none on elastic
    ///   clusters and before 4.0; MongoDB has none without a replica set.
    ///   <https://docs.aws.amazon.com/documentdb/latest/developerguide/transactions.html>
    pub fn in_transaction<'a>(&self, session: &'a mut ClientSession) -> InTransaction<'a> {
        InTransaction {
            backend: self.clone(),
            session,
        }
    }
}

/// The transaction of a session, for [`Queue::enqueue_in`](queue_api::Queue::enqueue_in) and
/// [`Queue::ack_in`](queue_api::Queue::ack_in); made by [`DocDbBackend::in_transaction`].
pub struct InTransaction<'a> {
    backend: DocDbBackend,
    session: &'a mut ClientSession,
}

impl std::fmt::Debug for InTransaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InTransaction")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl QueueTransaction for InTransaction<'_> {
    /// # Errors
    /// As [`in_transaction`](DocDbBackend::in_transaction).
    /// [`Unavailable`](queue_api::ErrorKind::Unavailable) also if another transaction enqueues the
    /// same id at the same time, and [`InvalidInput`](queue_api::ErrorKind::InvalidInput) if a
    /// unique index other than the one on `_id` refuses a message.
    async fn enqueue(
        &mut self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        let queue = self.backend.collection("enqueue", queue)?;
        let enqueued = queue.enqueue_within(self.session, messages).await;
        enqueued.map_err(|error| without_transactions(error).during("enqueue"))
    }

    /// # Errors
    /// As [`in_transaction`](DocDbBackend::in_transaction).
    /// [`Unavailable`](queue_api::ErrorKind::Unavailable) also if another call settles one of the
    /// messages at the same time.
    async fn ack(&mut self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let queue = self.backend.collection("ack", queue)?;
        let acked = queue.ack_within(self.session, receipts).await;
        acked.map_err(|error| without_transactions(error).during("ack"))
    }
}

/// Says what is missing on a standalone server. The driver and the server speak of retryable
/// writes.
fn without_transactions(error: StoreError) -> StoreError {
    const ILLEGAL_OPERATION: i32 = 20;
    let text = error.to_string();
    let is_standalone = ["retryWrites=false", "Transaction numbers are only allowed"]
        .iter()
        .any(|words| text.contains(words));
    match error.has_code(ILLEGAL_OPERATION) && is_standalone {
        true => {
            let message = "transactions need a replica set; this server is a standalone";
            StoreError::Setting(message.to_owned())
        }
        false => error,
    }
}

/// Whether a transaction is under way. The driver does not tell. But it refuses to start a second
/// one, and it refuses a start without acknowledgement in any case. So this changes nothing.
async fn is_in_transaction(session: &mut ClientSession, deadline: Deadline) -> bool {
    let start = session
        .start_transaction()
        .write_concern(WriteConcern::nodes(0));
    match deadline.run(start.into_future()).await {
        Err(StoreError::Driver(refusal)) => matches!(&*refusal.kind,
            DriverKind::Transaction { message, .. } if message == "transaction already in progress"),
        _ => false,
    }
}

impl QueueCollection {
    async fn check_transaction(
        &self,
        session: &mut ClientSession,
    ) -> std::result::Result<(), StoreError> {
        match is_in_transaction(session, self.deadline).await {
            true => Ok(()),
            false => Err(StoreError::NoTransaction),
        }
    }

    async fn enqueue_within(
        &self,
        session: &mut ClientSession,
        messages: &[NewMessage],
    ) -> std::result::Result<Vec<EnqueueOutcome>, StoreError> {
        self.check_transaction(session).await?;
        // Outside the transaction: DocumentDB makes no collection within one.
        self.prepare().await?;
        // A duplicate would end the transaction, so what is there is left out beforehand.
        let mut known: HashSet<&str> = HashSet::new();
        let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
        let query = Query::by_ids(doc! { "_id": { "$in": &ids } }, ids.len())
            .with_projection(doc! { "_id": 1 });
        let stored: HashSet<String> = self
            .find_in_session(session, query, |found| {
                Some(document::id(found)?.as_str().to_owned())
            })
            .await?
            .into_iter()
            .flatten()
            .collect();
        let now = self.now().await;
        let (mut outcomes, mut documents) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages {
            let id = message.id.as_str();
            if stored.contains(id) || !known.insert(id) {
                outcomes.push(EnqueueOutcome::Duplicate);
            } else {
                outcomes.push(EnqueueOutcome::Stored);
                let turn = self.state.turns.next();
                documents.push(document::write(message, turn, now));
            }
        }
        let mut rest = documents.as_slice();
        while !rest.is_empty() {
            let (part, later) = rest.split_at(first_part(rest));
            self.insert_in_session(session, part).await?;
            rest = later;
        }
        Ok(outcomes)
    }

    async fn insert_in_session(
        &self,
        session: &mut ClientSession,
        documents: &[RawDocumentBuf],
    ) -> std::result::Result<(), StoreError> {
        // No write concern: that is the commit's.
        let command = self.insert_command(documents.iter())?;
        let refused = match self.run_in_session(session, command).await {
            Ok(reply) => read_insert_reply(&reply, documents.len())?.refused,
            Err(error) => HashMap::from([(0, error.into_duplicate()?)]),
        };
        let mut refused = refused.into_iter();
        let Some((at, refusal)) = refused.next() else {
            return Ok(());
        };
        if refusal.code != DUPLICATE_KEY {
            return Err(refusal.into());
        }
        // Outside the transaction, because the duplicate has ended it.
        let document = documents.get(at).map(|document| (document, &refusal));
        self.check_duplicates(document.into_iter()).await?;
        Err(StoreError::TransactionConflict(refusal))
    }

    async fn ack_within(
        &self,
        session: &mut ClientSession,
        receipts: &[Receipt],
    ) -> std::result::Result<Vec<LeaseOutcome>, StoreError> {
        self.check_transaction(session).await?;
        self.check().await?;
        let uses: Vec<Option<ParsedReceipt>> = receipts.iter().map(ParsedReceipt::parse).collect();
        let ids: Vec<&str> = uses.iter().flatten().map(|held| held.id.as_str()).collect();
        let query = Query::by_ids(doc! { "_id": { "$in": &ids } }, ids.len())
            .with_projection(doc! { "lease": 1 });
        let mut leases: HashMap<_, _> = self
            .find_in_session(session, query, |found| {
                Some((document::id(found)?, document::uuid(found, "lease")?))
            })
            .await?
            .into_iter()
            .flatten()
            .collect();
        // Each is taken out by its first use.
        let mut outcome_of = |held: &Option<ParsedReceipt>| match held {
            Some(held) if leases.get(&held.id) == Some(&held.nonce) => {
                leases.remove(&held.id);
                LeaseOutcome::Applied
            }
            _ => LeaseOutcome::Lost,
        };
        let outcomes: Vec<LeaseOutcome> = uses.iter().map(&mut outcome_of).collect();
        let ours: Vec<&ParsedReceipt> = uses
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| **outcome == LeaseOutcome::Applied)
            .filter_map(|(held, _)| held.as_ref())
            .collect();
        if ours.is_empty() {
            return Ok(outcomes);
        }
        let deleted = self.delete_in_session(session, deletions(&ours)).await?;
        // Within a transaction, nothing changes between the find and the deletion.
        match deleted == ours.len() as u64 {
            true => Ok(outcomes),
            false => Err(StoreError::Uncertain),
        }
    }

    async fn find_in_session<T>(
        &self,
        session: &mut ClientSession,
        query: Query,
        read: impl Fn(&RawDocument) -> T,
    ) -> std::result::Result<Vec<T>, StoreError> {
        let mut retries = self.deadline.retries();
        loop {
            let found = self.find_in_session_once(session, query.clone(), &read, &retries);
            match found.await {
                Ok(answer) => return Ok(answer),
                Err(error) => retries.after_silence(error).await?,
            }
        }
    }

    async fn find_in_session_once<T>(
        &self,
        session: &mut ClientSession,
        query: Query,
        read: &impl Fn(&RawDocument) -> T,
        tries: &Retries,
    ) -> std::result::Result<Vec<T>, StoreError> {
        let (filter, options) = query.into_parts();
        let find = self
            .messages
            .find(filter)
            .with_options(options)
            .session(&mut *session)
            .into_future();
        let mut cursor = tries.run(find).await?;
        let mut found = Vec::new();
        while tries.run(cursor.advance(session)).await? {
            found.push(read(cursor.current()));
        }
        Ok(found)
    }

    /// Sends a command, and once more after a silence. If the first has arrived after all, the
    /// second ends the transaction with an error, and the caller repeats all of it.
    async fn run_in_session(
        &self,
        session: &mut ClientSession,
        command: Document,
    ) -> std::result::Result<Document, StoreError> {
        let mut retries = self.deadline.retries();
        loop {
            let sent = self.database.run_command(command.clone());
            let sent = sent.session(&mut *session).into_future();
            match retries.run(sent).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retries.after_silence(error).await?,
            }
        }
    }

    async fn delete_in_session(
        &self,
        session: &mut ClientSession,
        statements: Vec<Document>,
    ) -> std::result::Result<u64, StoreError> {
        // No write concern: that is the commit's.
        let command = doc! { "delete": self.messages.name(), "deletes": statements };
        let reply = self.run_in_session(session, command).await?;
        crate::write_reply::matched(&reply)
    }
}
