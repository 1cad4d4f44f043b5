//! The change stream: wakes waits when another process changes a queue.
//!
//! It is a hint that saves polling, and nothing depends on it. DocumentDB has change streams off
//! by default, elastic clusters have none, and a stream may stall behind a long write. Without
//! one, waits poll.
//! <https://docs.aws.amazon.com/documentdb/latest/developerguide/change_streams.html>

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mongodb::{
    Database,
    bson::{Document, doc},
    change_stream::event::ChangeStreamEvent,
};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    lock::lock,
    names::Prefix,
    state::queues::Queues,
    store::{
        error::StoreError,
        pause::{jittered, real_time},
        retry::Deadline,
    },
};

/// How long the server holds a `getMore` while nothing changes. An idle stream costs one command
/// in this time.
const MAX_AWAIT: Duration = Duration::from_secs(10);

/// An empty answer after this time proves that the server holds `getMore`s, so the stream works.
const HELD: Duration = Duration::from_secs(5);

/// The interval of the reader's heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// After this time without one, the reader's runtime has stopped or is blocked. Then waits poll, and
/// another reader takes over.
const STALLED: Duration = Duration::from_secs(5);

/// How long a stream stays open after the last wait. A working consumer waits again soon.
const LINGER: Duration = Duration::from_secs(20);

/// The first and the longest pause before a stream is opened again. If streams are off or cannot be
/// read, it usually stays so.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(120);

/// The change stream of one backend: one for the database, open while a call waits.
#[derive(Debug)]
pub(crate) struct Watch {
    database: Database,
    timeout: Duration,
    prefix: Prefix,
    queues: Arc<Queues>,
    /// The number of the reader whose stream is open; 0 if none is.
    open: AtomicU64,
    usage: Mutex<Usage>,
}

#[derive(Debug)]
struct Usage {
    waiting: usize,
    last_wait_ended: Instant,
    /// The task that reads the stream.
    reader: Option<JoinHandle<()>>,
    /// Its number, from 1.
    number: u64,
    /// When it last ran.
    ran: Instant,
    /// When a stream may be opened, and the pause after the next failure. They outlive the reader,
    /// because a consumer may wait again after a long time.
    open_at: Instant,
    retry: Duration,
}

/// A wait that uses the stream, until it is dropped.
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
            open: AtomicU64::new(0),
            usage: Mutex::new(Usage {
                waiting: 0,
                last_wait_ended: Instant::now(),
                reader: None,
                number: 0,
                ran: Instant::now(),
                open_at: Instant::now(),
                retry: FIRST_RETRY,
            }),
        })
    }

    /// Whether changes from now on wake waits.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst) != 0 && Instant::now() < self.trusted_until()
    }

    /// Until when the reader counts as running, if it does not run again.
    pub(crate) fn trusted_until(&self) -> Instant {
        lock(&self.usage).ran + STALLED
    }

    /// Counts a wait.
    pub(crate) fn join(self: &Arc<Self>) -> Waiting<'_> {
        lock(&self.usage).waiting += 1;
        Waiting(self)
    }

    /// Starts to read the stream, unless that is under way.
    pub(crate) fn keep_reading(self: &Arc<Self>) {
        let mut usage = lock(&self.usage);
        let reader = usage.reader.as_ref();
        // The reader is also finished if its runtime was shut down.
        let is_there = reader.is_some_and(|reader| !reader.is_finished());
        if is_there && usage.ran.elapsed() < STALLED {
            return;
        }
        if let Some(stalled) = usage.reader.take() {
            stalled.abort();
            // Its mark stays if its runtime never drops it.
            self.open.store(0, Ordering::SeqCst);
        }
        usage.number += 1;
        usage.ran = Instant::now();
        let reader = Arc::clone(self).read(usage.number);
        usage.reader = Some(tokio::spawn(reader));
    }

    /// Stops reading at once, because the backend is dropped.
    pub(crate) fn close(&self) {
        if let Some(reader) = lock(&self.usage).reader.take() {
            reader.abort();
        }
    }

    /// Removes the reader if no call has waited for a while. It does so under the lock, so that
    /// the next wait starts another.
    fn remove_unused_reader(&self) -> bool {
        let mut usage = lock(&self.usage);
        let is_unused = usage.waiting == 0 && usage.last_wait_ended.elapsed() > LINGER;
        if is_unused {
            usage.reader = None;
        }
        is_unused
    }

    /// Reads until no call waits any more. A reader that takes over aborts this one.
    async fn read(self: Arc<Self>, number: u64) {
        let runs = async {
            loop {
                lock(&self.usage).ran = Instant::now();
                real_time(Instant::now() + HEARTBEAT).await;
            }
        };
        tokio::select! {
            () = runs => {}
            () = self.follow_all(number) => {}
        }
    }

    async fn follow_all(&self, number: u64) {
        loop {
            let open_at = lock(&self.usage).open_at;
            real_time(open_at).await;
            if self.remove_unused_reader() {
                return;
            }
            match self.follow(number).await {
                Ok(Ended::Unused) => return,
                Ok(Ended::Closed) => {}
                // Expected: streams are off on DocumentDB, or there was a failover.
                Err(error) => tracing::debug!(%error, "no change stream; waits poll"),
            }
            let mut usage = lock(&self.usage);
            let pause = jittered(usage.retry);
            usage.open_at = Instant::now() + pause;
            usage.retry = (usage.retry * 2).min(LONGEST_RETRY);
        }
    }

    /// Opens a stream and wakes waits by it until it ends.
    async fn follow(&self, number: u64) -> Result<Ended, StoreError> {
        let opening = self
            .database
            .watch()
            .pipeline(pipeline(&self.prefix))
            .max_await_time(MAX_AWAIT);
        let mut stream = Deadline::after(self.timeout).run(opening).await?;
        self.open.store(number, Ordering::SeqCst);
        self.queues.wake_all();
        let _open = Open {
            watch: self,
            number,
        };
        // The driver's first answer is that to the opening.
        let mut is_new = true;
        while stream.is_alive() {
            if self.remove_unused_reader() {
                return Ok(Ended::Unused);
            }
            let asked = Instant::now();
            let deadline = Deadline::after(MAX_AWAIT + self.timeout);
            let event = deadline.run(stream.next_if_any()).await?;
            // A stream that only opens is no proof that it works: the user may not be allowed to
            // read it, and the driver answers a failed `getMore` by opening it again.
            let is_proof = event.is_some() || asked.elapsed() >= HELD;
            if is_proof {
                lock(&self.usage).retry = FIRST_RETRY;
            } else if !is_new {
                return Ok(Ended::Closed);
            }
            is_new = false;
            if let Some(ChangeStreamEvent { ns: Some(ns), .. }) = event
                && let Some(queue) = ns.coll.and_then(|name| self.prefix.queue(&name))
            {
                self.queues.wake(&queue);
            }
        }
        Ok(Ended::Closed)
    }
}

/// Why a stream ended.
enum Ended {
    /// No call waits any more, and the reader is removed.
    Unused,
    /// The server closed it, for example because the database was dropped, or does not hold
    /// `getMore`s, so that polling costs less.
    Closed,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut usage = lock(&self.0.usage);
        usage.waiting -= 1;
        usage.last_wait_ended = Instant::now();
    }
}

/// A stream that is marked as open, until this is dropped. All waits look again at the start and at the
/// end, because a change outside the stream's life wakes no wait.
struct Open<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let (open, seq) = (&self.watch.open, Ordering::SeqCst);
        // Another reader may have taken over.
        let _ = open.compare_exchange(self.number, 0, seq, seq);
        self.watch.queues.wake_all();
    }
}

/// Selects changes that may make a message ready sooner: inserts, and updates other than claims,
/// which set `lease`. Payloads are left out.
fn pipeline(prefix: &Prefix) -> [Document; 2] {
    let update = doc! {
        "operationType": "update",
        "updateDescription.updatedFields.lease": { "$exists": false },
    };
    let changes = doc! {
        "$or": [{ "operationType": "insert" }, update],
        "ns.coll": { "$regex": prefix.pattern() },
    };
    // The driver needs these three.
    let fields = doc! { "_id": 1, "operationType": 1, "ns": 1 };
    [doc! { "$match": changes }, doc! { "$project": fields }]
}
