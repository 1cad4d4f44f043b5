//! Step 2: each call is one transaction, which runs to its end whatever becomes of the caller.

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

use crate::{error, operations::QueueNow, schema};

/// How long a wait leaves the file alone at first, where another process may enqueue.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Queues in a SQLite file, which several processes of one machine may use at once.
///
/// Cloning it gives another handle on the same connection.
#[derive(Clone, Debug)]
pub struct SqliteBackend {
    clock: Arc<dyn Clock>,
    /// One connection, because SQLite has one writer at a time. The lock is tokio's: it is
    /// taken before a thread of the blocking pool is, so that a thousand calls wait in line as
    /// futures, first come first served, and not as a thousand threads.
    connection: Arc<Mutex<Connection>>,
    /// Notified when a message may have come to be ready earlier than a waiter has seen.
    earlier: Arc<Notify>,
}

/// What an operation does to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Reads,
    /// It writes, and nothing becomes ready by it.
    Writes,
    /// It writes, and those who wait should look again.
    WritesAndWakes,
}

impl SqliteBackend {
    /// Opens a file, which is made where there is none, on a clock that follows the machine's:
    /// [`SystemClock`].
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Denied`](ErrorKind::Denied) where the file
    /// cannot be used, [`Internal`](ErrorKind::Internal) where it is not a file of this version
    /// of this library; it is left as it was then.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let connection = blocking("open", move || schema::open(&path)).await?;
        Ok(Self {
            clock: Arc::new(SystemClock),
            connection: Arc::new(Mutex::new(connection)),
            earlier: Arc::default(),
        })
    }

    /// Takes time from another clock. All who use the file at once have to agree on the time.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn now(&self) -> Millis {
        millis::floor(self.clock.now())
    }

    /// Runs `work` in one transaction, and tells it what time it is.
    ///
    /// Cancel-safe (C1), with two await points. Who is dropped at the first, in line for the
    /// lock, has done nothing. Behind it, tokio runs a blocking task to its end even when
    /// nobody waits for it any more, so a call dropped at the second is carried out in full and
    /// only its answer is lost; the lock goes with the task, so the next call comes after it.
    /// And when the process dies in between, SQLite undoes what was not committed: a batch is
    /// stored, leased or settled as a whole or not at all (X1, R1).
    pub(crate) async fn transact<T: Send + 'static>(
        &self,
        operation: &'static str,
        access: Access,
        work: impl FnOnce(&Transaction<'_>, Millis) -> error::Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut connection = self.connection.clone().lock_owned().await;
        let this = self.clone();
        blocking(operation, move || {
            // A writer says so at its beginning: one that starts by reading would find at its
            // first write that another process has written since, and fail (C2).
            let transaction = connection.transaction_with_behavior(match access {
                Access::Reads => TransactionBehavior::Deferred,
                Access::Writes | Access::WritesAndWakes => TransactionBehavior::Immediate,
            })?;
            // The time is asked for under the lock. Taken before, it could be seconds old, and
            // a lease over before it is given.
            let answer = work(&transaction, this.now())?;
            transaction.commit()?;
            // Released first, so that those who are woken do not run into the lock. And woken
            // from here, so that a caller who was dropped wakes them too.
            drop(connection);
            if access == Access::WritesAndWakes {
                this.earlier.notify_waiters();
            }
            Ok(answer)
        })
        .await
    }

    /// The same for one queue.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        access: Access,
        queue: &QueueName,
        work: impl FnOnce(QueueNow<'_>) -> error::Result<T> + Send + 'static,
    ) -> Result<T> {
        let queue = queue.clone();
        self.transact(operation, access, move |file, now| {
            let queue = queue.as_str();
            work(QueueNow { file, queue, now })
        })
        .await
    }
}

/// Runs `work` where it may block: SQLite waits for the disk, and for other processes.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> error::Result<T> + Send + 'static,
) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(answer) => answer.map_err(|why| why.during(operation)),
        Err(stopped) => {
            let message = "it panicked, or the runtime is shutting down";
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
        let enqueue = move |on: QueueNow<'_>| on.enqueue(&messages);
        self.run("enqueue", Access::WritesAndWakes, queue, enqueue)
            .await
    }

    async fn lease(&self, queue: &QueueName, options: &LeaseOptions) -> Result<Vec<Delivery>> {
        let options = options.clone();
        let lease = move |on: QueueNow<'_>| on.lease(&options);
        self.run("lease", Access::Writes, queue, lease).await
    }

    async fn ack(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>> {
        let receipts = receipts.to_vec();
        let ack = move |on: QueueNow<'_>| on.ack(&receipts);
        self.run("ack", Access::Writes, queue, ack).await
    }

    async fn change(
        &self,
        queue: &QueueName,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>> {
        let changes = changes.to_vec();
        let change = move |on: QueueNow<'_>| on.change(&changes);
        self.run("change", Access::WritesAndWakes, queue, change)
            .await
    }

    /// Three things end a sleep (W1): a change by this process, at once; the next message
    /// falling due, by the clock; and a look at the file now and then, for other processes
    /// cannot tell us. `PRAGMA data_version` would say whether anything changed at all, but the
    /// look is one entry of an index: as cheap, and the answer itself.
    async fn wait(&self, queue: &QueueName, at_most: Duration) -> Result<()> {
        let give_up = self.now().saturating_add(millis::ceil(at_most));
        let mut until_next_look = FIRST_PAUSE;
        loop {
            // Registered before the look, so that what happens in between is not missed.
            let mut earlier = pin!(self.earlier.notified());
            earlier.as_mut().enable();
            let head = |on: QueueNow<'_>| on.head();
            let head = self.run("wait", Access::Reads, queue, head).await?;
            let until = head.map_or(give_up, |due| due.min(give_up));
            if until <= self.now() {
                return Ok(());
            }
            tokio::select! {
                () = earlier => {}
                () = self.clock.sleep_until(millis::to_time(until)) => {}
                () = pause(until_next_look) => {
                    until_next_look = (until_next_look * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let stats = |on: QueueNow<'_>| on.stats();
        self.run("stats", Access::Reads, queue, stats).await
    }
}

/// Lets real time pass, whatever clock the backend was given: what other processes do does not
/// wait for a clock that a test moves.
#[allow(clippy::disallowed_methods)] // the place where waiting happens
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
