//! Step 2: each call is one transaction, which runs to its end even if the caller is dropped.

use std::{path::Path, pin::pin, sync::Arc, time::Duration};

use queue_api::{
    Clock, Delivery, EnqueueOutcome, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome,
    Limits, NewMessage, QueueBackend, QueueName, QueueStats, Receipt, Result, SystemClock,
    async_trait,
    millis::{self, Millis},
};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::{
    sync::{Mutex, Notify},
    task::spawn_blocking,
};

use crate::{error, operations::QueueTransaction, schema};

/// How long `wait` pauses before it first looks for changes by other processes.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause. Each one is twice as long as the one before.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Queues in a SQLite file. Several processes of one machine may use it at once.
///
/// A clone uses the same connection.
#[derive(Clone, Debug)]
pub struct SqliteBackend {
    clock: Arc<dyn Clock>,
    /// One connection, because SQLite has one writer at a time. The lock is tokio's, so calls that
    /// wait for it do not block a thread.
    connection: Arc<Mutex<Connection>>,
    /// Notified when a message may be ready earlier than before.
    earlier: Arc<Notify>,
}

/// What an operation does with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Reads,
    Writes,
    /// Writes, and a message may be ready earlier, so `wait` calls look again.
    WritesAndWakes,
}

impl SqliteBackend {
    /// Opens a file, and creates it if there is none. The clock is [`SystemClock`].
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Denied`](ErrorKind::Denied) if the file cannot
    /// be used. [`Internal`](ErrorKind::Internal) if this version did not create it; the file
    /// stays unchanged.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let connection = blocking("open", move || schema::open(&path)).await?;
        Ok(Self {
            clock: Arc::new(SystemClock),
            connection: Arc::new(Mutex::new(connection)),
            earlier: Arc::default(),
        })
    }

    /// Takes the time from another clock. All processes that use the file must agree on the time.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn now(&self) -> Millis {
        millis::floor(self.clock.now())
    }

    /// Runs `work` in one transaction, and gives it the time.
    ///
    /// C1: there are two await points. A call that is dropped while it waits for the lock has done
    /// nothing. After that, tokio runs the blocking task to its end, so a call that is dropped then
    /// is carried out in full. The lock moves into the task, so the next call comes after it.
    ///
    /// R1, X1: if the process dies, SQLite rolls the transaction back. So a batch is carried out as
    /// a whole or not at all.
    pub(crate) async fn transact<T: Send + 'static>(
        &self,
        operation: &'static str,
        access: Access,
        work: impl FnOnce(&Transaction<'_>, Millis) -> error::Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut connection = self.connection.clone().lock_owned().await;
        let this = self.clone();
        blocking(operation, move || {
            // C2: a transaction that begins as a reader fails at its first write if another
            // process has written in between.
            let transaction = connection.transaction_with_behavior(match access {
                Access::Reads => TransactionBehavior::Deferred,
                Access::Writes | Access::WritesAndWakes => TransactionBehavior::Immediate,
            })?;
            // Read under the lock: an older time could make a lease expire before it is given.
            let answer = work(&transaction, this.now())?;
            transaction.commit()?;
            // Unlocked before the wake-up, so that the `wait` calls find it free. Both happen in
            // this task, so a dropped caller does not prevent them.
            drop(connection);
            if access == Access::WritesAndWakes {
                this.earlier.notify_waiters();
            }
            Ok(answer)
        })
        .await
    }

    /// The same as `transact`, for one queue.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        access: Access,
        queue: &QueueName,
        work: impl FnOnce(QueueTransaction<'_>) -> error::Result<T> + Send + 'static,
    ) -> Result<T> {
        let queue = queue.clone();
        self.transact(operation, access, move |transaction, now| {
            let queue = queue.as_str();
            work(QueueTransaction {
                transaction,
                queue,
                now,
            })
        })
        .await
    }
}

/// Runs `work` on a thread that may block, as SQLite does.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> error::Result<T> + Send + 'static,
) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(answer) => answer.map_err(|why| why.during(operation)),
        Err(stopped) => {
            let message = "the call panicked, or the runtime is shutting down";
            Err(Error::new(ErrorKind::Internal, operation, message).with_source(stopped))
        }
    }
}

#[async_trait]
impl QueueBackend for SqliteBackend {
    fn limits(&self) -> Limits {
        Limits::STANDARD
    }

    async fn enqueue(
        &self,
        queue: &QueueName,
        messages: &[NewMessage],
    ) -> Result<Vec<EnqueueOutcome>> {
        let messages = messages.to_vec();
        let enqueue = move |tx: QueueTransaction<'_>| tx.enqueue(&messages);
        self.run("enqueue", Access::WritesAndWakes, queue, enqueue)
            .await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let options = options.clone();
        let lease = move |tx: QueueTransaction<'_>| tx.lease(&options);
        self.run("lease", Access::Writes, queue, lease).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let receipts = receipts.to_vec();
        let ack = move |tx: QueueTransaction<'_>| tx.ack(&receipts);
        self.run("ack", Access::Writes, queue, ack).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        let changes = changes.to_vec();
        let change = move |tx: QueueTransaction<'_>| tx.change(&changes);
        self.run("change", Access::WritesAndWakes, queue, change)
            .await
    }

    /// W1: looks again after a change by this process, when the next message is ready, and from
    /// time to time. The last is for other processes, which cannot notify this one.
    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let deadline = self.now().saturating_add(millis::ceil(at_most));
        let mut time_is_up = pin!(pause(at_most));
        let mut until_next_look = FIRST_PAUSE;
        loop {
            // Registered before the look, so no change in between is missed.
            let mut earlier = pin!(self.earlier.notified());
            earlier.as_mut().enable();
            let next_ready = |tx: QueueTransaction<'_>| tx.next_ready();
            let next_ready = self.run("wait", Access::Reads, queue, next_ready).await?;
            let until = next_ready.map_or(deadline, |ready_at| ready_at.min(deadline));
            if until <= self.now() {
                return Ok(());
            }
            tokio::select! {
                () = earlier => {}
                () = self.clock.sleep_until(millis::to_time(until)) => {}
                // A test may stop the clock.
                () = &mut time_is_up => return Ok(()),
                () = pause(until_next_look) => {
                    until_next_look = (until_next_look * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let stats = |tx: QueueTransaction<'_>| tx.stats();
        self.run("stats", Access::Reads, queue, stats).await
    }
}

/// Sleeps in real time, because other processes do not follow a clock that a test moves.
#[allow(clippy::disallowed_methods)] // polls for other processes
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
