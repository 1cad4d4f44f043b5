//! A function that is called for every message of a queue.

use std::{fmt, future::Future, marker::PhantomData, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use super::{
    Handler, Lease, ListenOptions, Listener, Report, RetryPolicy,
    handler_runner::HandlerRunner,
    listener_task::{ProbeAnswer, after},
};
use crate::{Codec, Json, Queue, Result};

/// Calls a [`Handler`] for every message of a queue, several at a time.
///
/// | what happens | what becomes of the message |
/// |---|---|
/// | the handler returns `Ok` | acked |
/// | it returns an error, panics, or takes longer than the [time limit](Worker::with_time_limit) | tried again when the [`RetryPolicy`] or the error says |
/// | the same on the last attempt, or the error says [give up](super::Failure::give_up) | a dead letter at once, with the error as the reason |
/// | the payload does not decode | a dead letter, with the codec's error as the reason |
/// | the handler is still running at the deadline of a shutdown | cancelled and given back; costs no attempt |
/// | the process dies | ready again after the visibility timeout; the attempt counts |
///
/// Leases are renewed while handlers run, so a visibility timeout is not a time limit: it is how
/// soon others notice that this process is gone. Nothing that one message does ends the worker.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::{Queue, consumer::{Context, Handler, Worker}};
/// use queue_memory::MemoryBackend;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Mail { to: String }
///
/// async fn send(mail: Mail, _: Context) -> Result<(), String> {
///     match mail.to.as_str() {
///         "" => Err("nobody to send it to".into()),
///         _ => Ok(()),
///     }
/// }
///
/// /// A function that makes one names its handler by what it does.
/// fn mailer(queue: Queue) -> Worker<Mail, impl Handler<Mail>> {
///     Worker::new(queue, send).with_concurrency(4)
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> queue_api::Result<()> {
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "mail")?;
/// queue.typed().enqueue(&Mail { to: "ada".into() }).await?;
///
/// let report = mailer(queue).run_until_idle().await?;
/// assert_eq!(report.handled, 1);
/// # Ok(())
/// # }
/// ```
///
/// A program lets it run until Ctrl-C, a signal, a `CancellationToken`:
///
/// ```no_run
/// # use queue_api::consumer::{Handler, Worker};
/// # async fn program(worker: Worker<String, impl Handler<String>>) -> queue_api::Result<()> {
/// let report = worker.run(tokio::signal::ctrl_c()).await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
pub struct Worker<T, H, C = Json> {
    queue: Queue,
    options: ListenOptions,
    runner: HandlerRunner<H, C>,
    shutdown_deadline: Duration,
    payload: PhantomData<fn(T)>,
}

impl<T, H: Handler<T>> Worker<T, H> {
    /// How many messages are handled at a time unless [`with_concurrency`](Worker::with_concurrency)
    /// says otherwise.
    pub const DEFAULT_CONCURRENCY: usize = 16;

    /// How long handlers have to come to their end after a shutdown has begun, unless
    /// [`with_shutdown_deadline`](Worker::with_shutdown_deadline) says otherwise: 25 seconds,
    /// which leaves five of the 30 that Kubernetes grants to say so to the store.
    pub const DEFAULT_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(25);

    /// A worker with the defaults, for JSON payloads. Nothing is started.
    pub fn new(queue: Queue, handler: H) -> Self {
        Self {
            options: ListenOptions::new(Self::DEFAULT_CONCURRENCY),
            runner: HandlerRunner::new(queue.clone(), handler, Json),
            shutdown_deadline: Self::DEFAULT_SHUTDOWN_DEADLINE,
            payload: PhantomData,
            queue,
        }
    }
}

impl<T, H, C> Worker<T, H, C> {
    /// Handles at most `messages` at a time.
    #[must_use]
    pub fn with_concurrency(mut self, messages: usize) -> Self {
        self.options = self.options.with_concurrency(messages);
        self
    }

    /// Listens with these options, the concurrency and the clock among them.
    #[must_use]
    pub fn with_listen_options(mut self, options: ListenOptions) -> Self {
        self.options = options;
        self
    }

    /// Decodes payloads by a codec of your own.
    #[must_use]
    pub fn with_codec<D: Codec<T>>(self, codec: D) -> Worker<T, H, D> {
        Worker {
            queue: self.queue,
            options: self.options,
            runner: self.runner.with_codec(codec),
            shutdown_deadline: self.shutdown_deadline,
            payload: PhantomData,
        }
    }

    /// Tries failed messages again when `policy` says.
    #[must_use]
    pub fn with_retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.runner.retry = policy;
        self
    }

    /// Lets a handler take at most `time` for one message; then it is cancelled (its future is
    /// dropped), and that counts as a failure. Without a limit a handler that hangs keeps its
    /// message until the [lease's limit](ListenOptions::with_max_lease_time), and its place among
    /// the concurrent ones for as long as it hangs.
    #[must_use]
    pub fn with_time_limit(mut self, time: Duration) -> Self {
        self.runner.time_limit = Some(time);
        self
    }

    /// Gives handlers so much time to come to their end after a shutdown has begun.
    #[must_use]
    pub fn with_shutdown_deadline(mut self, time: Duration) -> Self {
        self.shutdown_deadline = time;
        self
    }
}

impl<T, H, C> Worker<T, H, C>
where
    T: Send + 'static,
    H: Handler<T>,
    C: Codec<T> + 'static,
{
    /// Works until `shutdown` resolves, and then shuts down: nothing new is claimed, what was
    /// claimed and not begun is given back, and handlers have until the
    /// [deadline](Worker::with_shutdown_deadline) to come to their end. Those that have not are
    /// cancelled (their futures are dropped), and their messages are given back, which costs no
    /// attempt. Leases are renewed throughout.
    ///
    /// A handler that blocks its thread cannot be cancelled, and is waited for. Where the store
    /// fails, a settlement is repeated for as long as its lease lasts. A lease call that is under way
    /// is waited for, which takes as long as the backend lets a call take (see
    /// [for implementers](crate::QueueBackend#for-implementers)).
    ///
    /// What `shutdown` resolves to does not matter; where it is a result, as that of
    /// `tokio::signal::ctrl_c()`, an error shuts down, too.
    ///
    /// Handlers run as tasks of the current tokio runtime. Dropping this future is no graceful
    /// shutdown: handlers are cancelled at once, and their messages are released as those of
    /// dropped leases, with the attempt counted.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) as [`Queue::listen`]; nothing was done
    /// then. Errors of the store do not end the worker.
    pub async fn run(&self, shutdown: impl Future) -> Result<Report> {
        let mut shift = self.begin()?;
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                _ = &mut shutdown => break,
                Some(done) = shift.jobs.join_next() => shift.note(done),
                lease = shift.listener.next() => match lease {
                    Some(lease) => shift.start(lease),
                    // The runtime is shutting down.
                    None => break,
                },
            }
        }
        let clock = self.options.clock.clone();
        let deadline = after(clock.now(), self.shutdown_deadline);
        Ok(shift.end(clock.sleep_until(deadline)).await)
    }

    /// Works until nothing is ready and nothing runs: for tests, and for programs that are started
    /// now and then.
    ///
    /// A message that is delayed does not count, nor does one that failed and is to be tried
    /// again later. In virtual time a test lets that time pass and calls this once more:
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use queue_api::{NewMessage, Queue, consumer::{Context, Worker}};
    /// use queue_memory::MemoryBackend;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> queue_api::Result<()> {
    /// let queue = Queue::new(Arc::new(MemoryBackend::new()), "reminders")?;
    /// let day = Duration::from_secs(24 * 3600);
    /// queue.enqueue(&NewMessage::new("\"tomorrow\"").with_delay(day)).await?;
    ///
    /// let remind = |_: String, _: Context| async { Ok::<_, String>(()) };
    /// let worker = Worker::new(queue, remind);
    /// assert_eq!(worker.run_until_idle().await?.handled, 0);
    /// tokio::time::advance(day).await;
    /// assert_eq!(worker.run_until_idle().await?.handled, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// In a paused runtime time passes by itself while a handler waits, so what is delayed, or
    /// failed before, may fall due within the same call, and is handled then.
    ///
    /// Messages that others hold do not count either. While the store fails, this waits for it.
    ///
    /// # Errors
    /// As [`run`](Worker::run).
    pub async fn run_until_idle(&self) -> Result<Report> {
        let mut shift = self.begin()?;
        let mut probe = None;
        loop {
            if shift.jobs.is_empty() && probe.is_none() {
                probe = Some(Box::pin(shift.listener.probe()));
            }
            let answered = async {
                match &mut probe {
                    Some(probe) => probe.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = shift.jobs.join_next() => shift.note(done),
                lease = shift.listener.next() => {
                    // Its handler may enqueue something, so who asked before has to ask again.
                    probe = None;
                    match lease {
                        Some(lease) => shift.start(lease),
                        None => break,
                    }
                }
                answer = answered => {
                    if answer == ProbeAnswer::NothingReady {
                        break;
                    }
                    probe = None;
                }
            }
        }
        Ok(shift.end(std::future::pending()).await)
    }

    fn begin(&self) -> Result<WorkerRun<T, H, C>> {
        let runner = self.runner.clone().with_clock(self.options.clock.clone());
        Ok(WorkerRun {
            listener: self.queue.listen(self.options.clone())?,
            runner: Arc::new(runner),
            jobs: JoinSet::new(),
            stopping: watch::Sender::new(false),
            cancelled: watch::Sender::new(false),
            report: Report::default(),
            payload: PhantomData,
        })
    }
}

impl<T, H, C: fmt::Debug> fmt::Debug for Worker<T, H, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queue", &self.queue)
            .field("options", &self.options)
            .field("runner", &self.runner)
            .field("shutdown_deadline", &self.shutdown_deadline)
            .finish()
    }
}

/// A worker at work.
struct WorkerRun<T, H, C> {
    listener: Listener,
    runner: Arc<HandlerRunner<H, C>>,
    /// One task for each message, so that a handler which computes does not keep others waiting.
    jobs: JoinSet<Report>,
    stopping: watch::Sender<bool>,
    cancelled: watch::Sender<bool>,
    report: Report,
    payload: PhantomData<fn(T)>,
}

impl<T, H, C> WorkerRun<T, H, C>
where
    T: Send + 'static,
    H: Handler<T>,
    C: Codec<T> + 'static,
{
    fn start(&mut self, lease: Lease) {
        let runner = self.runner.clone();
        let stopping = self.stopping.subscribe();
        let cancelled = self.cancelled.subscribe();
        self.jobs.spawn(async move {
            // Boxed, so that the size of a handler's future is not that of every task's.
            Box::pin(runner.handle::<T>(lease, stopping, cancelled)).await
        });
    }

    fn note(&mut self, done: Result<Report, JoinError>) {
        // The handler's own panics are caught; what is left are those of a retry policy and of
        // the text of an error. The lease was dropped, and so released.
        self.report += done.unwrap_or(Report {
            failed: 1,
            ..Report::default()
        });
    }

    async fn end(mut self, deadline: impl Future<Output = ()>) -> Report {
        self.stopping.send_replace(true);
        let returned = self.listener.stop();
        let mut deadline = pin!(deadline);
        loop {
            let over = *self.cancelled.borrow();
            tokio::select! {
                biased;
                done = self.jobs.join_next() => match done {
                    Some(done) => self.note(done),
                    None => break,
                },
                () = &mut deadline, if !over => { self.cancelled.send_replace(true); }
            }
        }
        returned.await;
        self.listener.drain().await;
        self.report
    }
}
