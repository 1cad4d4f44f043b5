//! Enqueue and ack inside a transaction of the caller's.

use mongodb::{
    Client, ClientSession,
    options::{ReadConcern, ReadPreference, SelectionCriteria, TransactionOptions, WriteConcern},
};
use queue_api::{
    EnqueueOutcome, LeaseOutcome, NewMessage, QueueName, QueueTransaction, Receipt, Result,
    async_trait,
};

use crate::{
    backend::DocDbBackend,
    store::error::{StoreError, during},
};

impl DocDbBackend {
    /// The driver's client, for the application's own collections and for sessions whose
    /// transactions [`in_transaction`](Self::in_transaction) joins.
    pub fn client(&self) -> &Client {
        self.direct.database.client()
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
        let call = async { self.direct.deadline()?.run(starting).await };
        during("start session", call).await
    }

    /// Makes the queue's collection and indexes now, if this instance has not done so.
    ///
    /// The first enqueue does it by itself. In a transaction, call this before: a transaction does
    /// not see a queue that was made after it began, so its enqueue gets a retryable error.
    ///
    /// # Errors
    /// [`Denied`](queue_api::ErrorKind::Denied): the user may not make collections or indexes.
    pub async fn prepare(&self, queue: &QueueName) -> Result<()> {
        let call = async { self.direct.collection(queue)?.prepare().await };
        during("prepare", call).await
    }

    /// Joins the transaction that you started in `session`. Enqueues and acks take effect when you
    /// commit, together with your own writes. If you abort, none does.
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
    /// - Lease before the transaction's first command. A transaction sees the data as of that command,
    ///   so a receipt that is leased later is `Lost`.
    /// - Outcomes are true only if the commit succeeds. After an abort, ignore them: a failover may have
    ///   undone the data that they were based on.
    /// - If the answer to the commit was lost, repeat the commit. The driver does so once.
    /// - Consumers see the messages at their next poll or change stream event.
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
        let call = async {
            let queue = self.backend.direct.collection(queue)?;
            let enqueued = queue.enqueue_within(self.session, messages).await;
            enqueued.map_err(without_transactions)
        };
        during("enqueue", call).await
    }

    /// # Errors
    /// As [`in_transaction`](DocDbBackend::in_transaction).
    /// [`Unavailable`](queue_api::ErrorKind::Unavailable) also if another call settles one of the
    /// messages at the same time.
    async fn ack(&mut self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let call = async {
            let queue = self.backend.direct.collection(queue)?;
            let acked = queue.ack_within(self.session, receipts).await;
            acked.map_err(without_transactions)
        };
        during("ack", call).await
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
            StoreError::Invalid(message.to_owned())
        }
        false => error,
    }
}
