//! WakeMode of what other processes do: one change stream for the database, open while somebody
//! waits.
//!
//! It is a hint that saves looking, and nothing depends on it: DocumentDB has it switched off
//! until somebody switches it on, elastic clusters lack it, and it may stall behind a long
//! write. Where there is none, waits look again at intervals.
//! <https://docs.aws.amazon.com/documentdb/latest/developerguide/change_streams.html>

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mongodb::{
    Database,
    bson::{Document, doc},
    change_stream::event::ChangeStreamEvent,
};
use tokio::{task::JoinHandle, time::Instant};

use crate::{collection::run, error::StoreError, names::Prefix, queues::Queues};

/// For how long the server holds a question for news while there is none: one command in this
/// time is all that an open stream costs while nothing happens.
const AWAIT_NEWS: Duration = Duration::from_secs(10);

/// How long a question takes at least where the server does not hold it.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// How long a stream stays open after the last wait: a consumer that works waits again soon.
const LINGER: Duration = Duration::from_secs(20);

/// When to try again to open a stream, at first and at most. Where it is switched off, it will
/// be for long.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(120);

/// The change stream of one instance of the backend, and who wants it.
#[derive(Debug)]
pub(crate) struct Watch {
    database: Database,
    timeout: Duration,
    prefix: Prefix,
    queues: Arc<Queues>,
    is_open: AtomicBool,
    /// A std mutex: it is held for a look, never across an await.
    interest: Mutex<Interest>,
}

#[derive(Debug)]
struct Interest {
    waiting: usize,
    last_left: Instant,
    /// None while nobody reads the stream.
    reader: Option<JoinHandle<()>>,
}

/// Somebody waits, as long as this lives.
pub(crate) struct Waiting<'a>(&'a Watch);

impl Watch {
    pub(crate) fn new(
        database: Database,
        timeout: Duration,
        prefix: Prefix,
        queues: Arc<Queues>,
    ) -> Arc<Self> {
        Arc::new(Self {
            database,
            timeout,
            prefix,
            queues,
            is_open: AtomicBool::new(false),
            interest: Mutex::new(Interest {
                waiting: 0,
                last_left: Instant::now(),
                reader: None,
            }),
        })
    }

    /// Whether what happens from now on is told.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Takes note that somebody waits, and sees to it that the stream is being read.
    pub(crate) fn join(self: &Arc<Self>) -> Waiting<'_> {
        let mut interest = self.interest();
        interest.waiting += 1;
        // A reader whose runtime was shut down is finished too.
        if interest.reader.as_ref().is_none_or(JoinHandle::is_finished) {
            interest.reader = Some(tokio::spawn(Arc::clone(self).read()));
        }
        Waiting(self)
    }

    /// Ends the reading at once: the backend goes away.
    pub(crate) fn close(&self) {
        if let Some(reader) = self.interest().reader.take() {
            reader.abort();
        }
    }

    fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs the reader off, if nobody has waited for a while. Under the lock, so that whoever
    /// comes next starts another.
    fn is_forgotten(&self) -> bool {
        let mut interest = self.interest();
        let forgotten = interest.waiting == 0 && interest.last_left.elapsed() > LINGER;
        if forgotten {
            interest.reader = None;
        }
        forgotten
    }

    async fn read(self: Arc<Self>) {
        let mut retry = FIRST_RETRY;
        loop {
            match self.follow(&mut retry).await {
                Ok(Ended::Forgotten) => return,
                Ok(Ended::Closed) => {}
                // Switched off on DocumentDB, or a failover; a consumer is none the worse.
                Err(error) => tracing::debug!(%error, "no change stream, so queues are looked at"),
            }
            pause(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
            if self.is_forgotten() {
                return;
            }
        }
    }

    /// Opens a stream and passes its news on until it ends.
    async fn follow(&self, retry: &mut Duration) -> Result<Ended, StoreError> {
        let opening = self
            .database
            .watch()
            .pipeline(news_of(&self.prefix))
            .max_await_time(AWAIT_NEWS);
        let mut stream = run(self.timeout, opening).await?;
        let _open = Open::new(self);
        while stream.is_alive() {
            if self.is_forgotten() {
                return Ok(Ended::Forgotten);
            }
            let asked = Instant::now();
            let news = run(AWAIT_NEWS + self.timeout, stream.next_if_any()).await?;
            // Only now: some may open a stream that they cannot read.
            *retry = FIRST_RETRY;
            let Some(ChangeStreamEvent { ns: Some(ns), .. }) = news else {
                // A server that does not hold the question is not to be asked in a loop.
                let rest = LEAST_WAIT.saturating_sub(asked.elapsed());
                pause(rest).await;
                continue;
            };
            if let Some(queue) = ns.coll.and_then(|name| self.prefix.queue(&name)) {
                self.queues.wake(&queue);
            }
        }
        Ok(Ended::Closed)
    }
}

/// Why a stream ended.
enum Ended {
    /// Nobody waits any more, and its reader has been signed off.
    Forgotten,
    /// The server closed it, because the database was dropped for one.
    Closed,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut interest = self.0.interest();
        interest.waiting -= 1;
        interest.last_left = Instant::now();
    }
}

/// Says that the stream is open for as long as it is, however it ends. Whoever waits looks again
/// at either end: what happened before was not told, and what happens after will not be.
struct Open<'a>(&'a Watch);

impl<'a> Open<'a> {
    fn new(watch: &'a Watch) -> Self {
        watch.is_open.store(true, Ordering::SeqCst);
        watch.queues.wake_all();
        Self(watch)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.is_open.store(false, Ordering::SeqCst);
        self.0.queues.wake_all();
    }
}

/// What may make a message ready sooner: it came in, or was changed by anything but a claim,
/// which is what sets a lease. Payloads stay where they are.
fn news_of(prefix: &Prefix) -> [Document; 2] {
    let changed = doc! {
        "operationType": "update",
        "updateDescription.updatedFields.lease": { "$exists": false },
    };
    let mut news = doc! { "$or": [{ "operationType": "insert" }, changed] };
    if let Some(collections) = prefix.pattern() {
        news.insert("ns.coll", doc! { "$regex": collections });
    }
    // The driver needs all three of them.
    let names = doc! { "_id": 1, "operationType": 1, "ns": 1 };
    [doc! { "$match": news }, doc! { "$project": names }]
}

#[allow(clippy::disallowed_methods)] // leaves the server alone, whatever time it is here
async fn pause(duration: Duration) {
    tokio::time::sleep(duration.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
}
