//! Several workers under one shutdown.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use tokio::sync::watch;

use super::{Handler, Report, Worker, worker::shutdown_panicked};
use crate::{Codec, Result, catch_panic::caught};

/// Workers that run together and shut down together: for several queues, or several types.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use queue_api::{Queue, consumer::{Context, Failure, Worker, Workers}};
/// use queue_memory::MemoryBackend;
///
/// async fn send(_mail: String, _: Context) -> Result<(), Failure> { Ok(()) }
/// async fn charge(_amount: u32, _: Context) -> Result<(), Failure> { Ok(()) }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> queue_api::Result<()> {
/// let backend = Arc::new(MemoryBackend::new());
/// let mails = Queue::new(backend.clone(), "mails")?;
/// let orders = Queue::new(backend, "orders")?;
/// mails.typed().enqueue(&"to Ada".to_owned()).await?;
/// orders.typed().enqueue(&20).await?;
///
/// let workers = Workers::new()
///     .with(Worker::new(mails, send))
///     .with(Worker::new(orders, charge).with_concurrency(4));
/// let shutdown = tokio::time::sleep(Duration::from_secs(60)); // in a program: shutdown_signal()
/// for report in workers.run(shutdown).await {
///     assert_eq!(report?.handled, 1);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Workers(Vec<Box<dyn AnyWorker>>);

impl Workers {
    /// No workers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a worker.
    #[must_use]
    pub fn with<T, H, C>(mut self, worker: Worker<T, H, C>) -> Self
    where
        T: Send + 'static,
        H: Handler<T>,
        C: Codec<T> + 'static,
    {
        self.0.push(Box::new(worker));
        self
    }

    /// Runs all workers until `shutdown` resolves or the first one fails. Then all shut down, each as
    /// [`Worker::run`] says. Returns the outcome of each, in the order in which they were added.
    ///
    /// Without workers, it waits for `shutdown`.
    ///
    /// # Errors
    /// Each outcome is that of [`Worker::run`]. If `shutdown` panics, all are errors.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use = "each worker may have failed"]
    pub async fn run(&self, shutdown: impl Future) -> Vec<Result<Report>> {
        let stop = watch::Sender::new(false);
        let mut running: Vec<_> = self
            .0
            .iter()
            .map(|one| one.start(stop.subscribe()))
            .collect();
        let mut outcomes: Vec<Option<Result<Report>>> = running.iter().map(|_| None).collect();
        let mut asked = Box::pin(caught(|| async { drop(shutdown.await) }));
        let mut panic = None;
        poll_fn(|cx| {
            if !*stop.borrow()
                && let Poll::Ready(asked) = asked.as_mut().poll(cx)
            {
                panic = asked.err();
                stop.send_replace(true);
            }
            for (worker, outcome) in running.iter_mut().zip(&mut outcomes) {
                if outcome.is_none()
                    && let Poll::Ready(ended) = worker.as_mut().poll(cx)
                {
                    // A worker that was not asked ends only if it fails.
                    stop.send_replace(true);
                    *outcome = Some(ended);
                }
            }
            match *stop.borrow() && outcomes.iter().all(Option::is_some) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        let outcomes = outcomes.into_iter().flatten();
        let report = |report| match &panic {
            Some(panic) => Err(shutdown_panicked(panic, report)),
            None => Ok(report),
        };
        outcomes.map(|outcome| outcome.and_then(report)).collect()
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Workers").field(&self.0).finish()
    }
}

/// A [`Worker`] of any type.
trait AnyWorker: fmt::Debug + Send + Sync {
    /// Runs until `stop` is true.
    fn start(&self, stop: watch::Receiver<bool>) -> Running<'_>;
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Report>> + Send + 'a>>;

impl<T, H, C> AnyWorker for Worker<T, H, C>
where
    T: Send + 'static,
    H: Handler<T>,
    C: Codec<T> + 'static,
{
    fn start(&self, mut stop: watch::Receiver<bool>) -> Running<'_> {
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        Box::pin(self.run(stopped))
    }
}
