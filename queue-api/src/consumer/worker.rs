//! A worker calls a function for every message of a queue.

use std::{
    fmt,
    future::{Future, pending},
    marker::PhantomData,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use super::{
    Handler, Lease, ListenOptions, Listener, Report, RetryPolicy,
    handler_runner::HandlerRunner,
    listener_task::{ProbeAnswer, after},
};
use crate::{
    Clock, Codec, Error, ErrorKind, Json, Queue, Result,
    catch_panic::{catch, caught, log},
};

/// Calls a [`Handler`] for every message of a queue, several at a time.
///
/// | what happens | what the worker does with the message |
/// |---|---|
/// | the handler returns `Ok` | acks it |
/// | the handler returns an error, panics, or exceeds the [time limit](Worker::with_time_limit), or the payload does not decode | retries it at the time that the [`RetryPolicy`] or the error gives |
/// | the same on the last attempt, or the error says [give up](super::Failure::give_up) | makes it a dead letter at once, with the error as the reason |
/// | the handler is still running at the shutdown deadline | cancels the handler and releases the message; the attempt does not count |
/// | the process crashes | nothing; it becomes ready after the visibility timeout, and the attempt counts |
///
/// Leases are renewed while handlers run, so the visibility timeout is not a time limit. It is the
/// time after which other consumers get the messages of a crashed process. No message can stop the
/// worker.
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
///         "" => Err("no recipient".into()),
///         _ => Ok(()),
///     }
/// }
///
/// /// `impl Handler<Mail>` names the type of the handler.
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
/// A program runs it until [`shutdown_signal`](super::shutdown_signal), or a `CancellationToken`:
///
/// ```no_run
/// # use queue_api::consumer::{Handler, Worker, shutdown_signal};
/// # async fn program(worker: Worker<String, impl Handler<String>>) -> queue_api::Result<()> {
/// let report = worker.run(shutdown_signal()).await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
///
/// [`Workers`](super::Workers) runs several.
pub struct Worker<T, H, C = Json> {
    queue: Queue,
    options: ListenOptions,
    runner: HandlerRunner<H, C>,
    shutdown_deadline: Duration,
    payload: PhantomData<fn(T)>,
}

const SETTLE_GRACE: Duration = Duration::from_secs(4);

impl<T, H: Handler<T>> Worker<T, H> {
    /// Default of [`with_concurrency`](Worker::with_concurrency).
    pub const DEFAULT_CONCURRENCY: usize = 16;

    /// Default of [`with_shutdown_deadline`](Worker::with_shutdown_deadline): 25 seconds. With
    /// [`SETTLE_GRACE`](Worker::SETTLE_GRACE) it is within the 30 after which Kubernetes kills a pod.
    pub const DEFAULT_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(25);

    /// How long a shutdown waits for the store after the deadline.
    pub const SETTLE_GRACE: Duration = SETTLE_GRACE;

    /// A worker with default options, for JSON payloads. It does nothing until you run it.
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

    /// Sets the options of the listener, including the concurrency and the clock.
    #[must_use]
    pub fn with_listen_options(mut self, options: ListenOptions) -> Self {
        self.options = options;
        self
    }

    /// Decodes payloads with `codec`.
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

    /// Retries failed messages as `policy` says.
    #[must_use]
    pub fn with_retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.runner.retry = policy;
        self
    }

    /// Cancels a handler after `time` (its future is dropped), which counts as a failure.
    ///
    /// Without a limit, a handler that hangs keeps its message until the
    /// [lease's limit](ListenOptions::with_max_lease_time), and takes up one of the concurrent
    /// handlers for as long as it hangs.
    #[must_use]
    pub fn with_time_limit(mut self, time: Duration) -> Self {
        self.runner.time_limit = Some(time);
        self
    }

    /// Gives handlers this much time to finish after a shutdown has begun. The store has
    /// [`SETTLE_GRACE`](Worker::SETTLE_GRACE) more.
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
    /// Works until `shutdown` resolves, and then shuts down:
    ///
    /// 1. It claims nothing more, and releases messages whose handler has not begun.
    /// 2. Handlers may finish until the [deadline](Worker::with_shutdown_deadline). Their leases are
    ///    renewed.
    /// 3. It cancels the remaining handlers (their futures are dropped) and releases their
    ///    messages. The attempt does not count.
    /// 4. [`SETTLE_GRACE`](Worker::SETTLE_GRACE) after the deadline it gives up settlements that the
    ///    store has not confirmed. They count as [`unsettled`](Report::unsettled). If a lease call is
    ///    in flight, a background task releases what it leases.
    ///
    /// It waits for a handler that blocks its thread, as that cannot be cancelled.
    ///
    /// The output of `shutdown` is ignored. An error, for example of a signal handler, also shuts
    /// down.
    ///
    /// Handlers run as tasks of the current tokio runtime. Dropping this future is not a graceful
    /// shutdown: it cancels handlers at once and drops their leases, so the attempt counts.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) as [`Queue::listen`], before any work is done.
    /// [`Internal`](ErrorKind::Internal) if the worker cannot go on:
    ///
    /// - its runtime has shut down or has no timer. Handlers are cancelled, as by a drop.
    /// - `shutdown` panicked. The worker has shut down as if it had resolved.
    ///
    /// Errors of the store do not end the worker. Nor do panics, wherever it calls your code.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn run(&self, shutdown: impl Future) -> Result<Report> {
        let mut run = self.start_run()?;
        let mut shutdown = pin!(caught(|| async { drop(shutdown.await) }));
        let asked = loop {
            tokio::select! {
                biased;
                asked = &mut shutdown => break asked,
                Some(done) = run.handlers.join_next() => run.record(done),
                lease = run.listener.next() => match lease {
                    Some(lease) => run.start_handler(lease),
                    None => return Err(run.listener.failure()),
                },
            }
        };
        let clock = self.options.clock.clone();
        let report = run.shut_down(clock, Some(self.shutdown_deadline)).await;
        match asked {
            Ok(()) => Ok(report),
            Err(panic) => Err(shutdown_panicked(&panic, report)),
        }
    }

    /// Works until no message is ready and no handler runs. Use it in tests and scheduled jobs.
    ///
    /// It does not wait for delayed messages, nor for failed ones that will be retried later. A test
    /// in virtual time can advance the time and call this again:
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
    /// In a paused runtime, time advances while a handler waits. Messages that become ready by that
    /// are handled in the same call.
    ///
    /// It does not wait for messages that other consumers have leased. While the store fails, it
    /// waits.
    ///
    /// # Errors
    /// As [`run`](Worker::run).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn run_until_idle(&self) -> Result<Report> {
        let mut run = self.start_run()?;
        let mut probe = None;
        loop {
            if run.handlers.is_empty() && probe.is_none() {
                probe = Some(Box::pin(run.listener.probe()));
            }
            let answered = async {
                match &mut probe {
                    Some(probe) => probe.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = run.handlers.join_next() => run.record(done),
                lease = run.listener.next() => {
                    // Its handler may enqueue a message, so an earlier answer is outdated.
                    probe = None;
                    match lease {
                        Some(lease) => run.start_handler(lease),
                        None => return Err(run.listener.failure()),
                    }
                }
                answer = answered => match answer {
                    Some(ProbeAnswer::NothingReady) => break,
                    Some(ProbeAnswer::SomethingLeased) => probe = None,
                    None => return Err(run.listener.failure()),
                },
            }
        }
        Ok(run.shut_down(self.options.clock.clone(), None).await)
    }

    fn start_run(&self) -> Result<WorkerRun<T, H, C>> {
        let runner = self.runner.clone().with_clock(self.options.clock.clone());
        // First, because it panics outside a runtime.
        let listener = self.queue.listen(self.options.clone())?;
        // Otherwise a shutdown that begins at once would panic at its deadline's timer.
        let timer = || drop(tokio::time::timeout(Duration::ZERO, pending::<()>()));
        catch(timer).map_err(|panic| {
            let message = format!("a worker needs a tokio runtime with a timer; this one {panic}");
            Error::new(ErrorKind::Internal, "run", message)
        })?;
        Ok(WorkerRun {
            listener,
            runner: Arc::new(runner),
            handlers: JoinSet::new(),
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

pub(super) fn shutdown_panicked(panic: &str, report: Report) -> Error {
    let message = format!("the shutdown future {panic}; the worker has shut down: {report}");
    Error::new(ErrorKind::Internal, "run", message)
}

/// One run of a worker.
struct WorkerRun<T, H, C> {
    listener: Listener,
    runner: Arc<HandlerRunner<H, C>>,
    /// One task for each message, so that a handler that computes does not block the others.
    handlers: JoinSet<Result<Report, ()>>,
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
    fn start_handler(&mut self, lease: Lease) {
        let runner = self.runner.clone();
        let stopping = self.stopping.subscribe();
        let cancelled = self.cancelled.subscribe();
        self.handlers.spawn(async move {
            // Panics of the handler are caught inside. What panics here is for example the retry
            // policy. The lease is dropped, so the message is retried.
            let handled = caught(|| runner.handle::<T>(lease, stopping, cancelled)).await;
            handled.map_err(|panic| log("the worker's code around a handler", &panic))
        });
    }

    fn record(&mut self, done: Result<Result<Report, ()>, JoinError>) {
        let failed = Report {
            failed: 1,
            ..Report::default()
        };
        self.report += done.ok().and_then(Result::ok).unwrap_or(failed);
    }

    /// Cancels the handlers at the deadline, if there is one. After it, gives up settlements as often
    /// as the grace passes, because a handler that blocks its thread settles later.
    async fn shut_down(mut self, clock: Arc<dyn Clock>, deadline: Option<Duration>) -> Report {
        self.stopping.send_replace(true);
        drop(self.listener.stop());
        let mut drained = pin!(self.listener.drained());
        let mut is_drained = false;
        let sleep = |time: Option<Duration>| {
            let clock = clock.clone();
            async move {
                match time {
                    Some(time) => clock.sleep_until(after(clock.now(), time)).await,
                    None => pending().await,
                }
            }
        };
        let mut timer = pin!(sleep(deadline));
        while !(is_drained && self.handlers.is_empty()) {
            tokio::select! {
                biased;
                Some(done) = self.handlers.join_next() => self.record(done),
                () = &mut drained, if !is_drained => is_drained = true,
                () = &mut timer => {
                    if self.cancelled.send_replace(true) {
                        self.listener.give_up();
                    }
                    timer.set(sleep(Some(SETTLE_GRACE)));
                }
            }
        }
        self.report
    }
}
