//! What a worker calls for each message.

use std::{fmt, future::Future, sync::Arc, time::Duration, time::SystemTime};

use tokio::sync::watch;

use super::{Failure, Lease, LeaseEnd, SettleFuture, lease::Extender};
use crate::{Headers, MessageId};

/// What a [`Worker`](super::Worker) calls for each message: an async function of the decoded
/// payload and a [`Context`].
///
/// `Ok` acks the message. An error becomes a [`Failure`], and so does a panic.
///
/// ```
/// use queue_api::consumer::{Context, Failure, Handler};
///
/// async fn greet(name: String, context: Context) -> Result<(), Failure> {
///     println!("hello {name}, for the {}. time", context.attempt());
///     Ok(())
/// }
///
/// fn takes_a_handler(_: impl Handler<String>) {}
/// takes_a_handler(greet);
/// takes_a_handler(|name: String, _: Context| async move {
///     std::fs::remove_file(&name) // any error will do
/// });
/// ```
pub trait Handler<T>: Send + Sync + 'static {
    /// Handles one message. The future may be dropped at any await point: at the time limit, and
    /// at the deadline of a shutdown.
    fn handle(
        &self,
        message: T,
        context: Context,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl<T, F, Fut, E> Handler<T> for F
where
    T: Send + 'static,
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<Failure>,
{
    async fn handle(&self, message: T, context: Context) -> Result<(), Failure> {
        self(message, context).await.map_err(Into::into)
    }
}

/// What a handler knows of the message besides its payload, and what it can do to its lease. The
/// settlement is the worker's.
#[derive(Clone)]
pub struct Context {
    about: Arc<About>,
    lease: Extender,
    stopping: watch::Receiver<bool>,
}

#[derive(Debug)]
struct About {
    id: MessageId,
    headers: Headers,
    attempt: u32,
    max_attempts: u32,
    enqueued_at: SystemTime,
}

impl Context {
    pub(super) fn new(lease: &Lease, stopping: watch::Receiver<bool>) -> Self {
        let about = About {
            id: lease.id().clone(),
            headers: lease.headers().clone(),
            attempt: lease.attempt(),
            max_attempts: lease.max_attempts(),
            enqueued_at: lease.enqueued_at(),
        };
        Self {
            about: Arc::new(about),
            lease: lease.extender(),
            stopping,
        }
    }

    /// The message's id: what to recognise a repetition by.
    pub fn id(&self) -> &MessageId {
        &self.about.id
    }

    /// The headers that were enqueued.
    pub fn headers(&self) -> &Headers {
        &self.about.headers
    }

    /// Which delivery of the message this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.about.attempt
    }

    /// How often the message is delivered at most.
    pub fn max_attempts(&self) -> u32 {
        self.about.max_attempts
    }

    /// When the message was enqueued, by the backend's clock.
    pub fn enqueued_at(&self) -> SystemTime {
        self.about.enqueued_at
    }

    /// Resolves when the message may be in somebody else's hands, so that the handler can stop
    /// its side effects: see [`Lease::lost`]. The worker lets a handler go on all the same: if
    /// nobody else has taken the message, its work still counts.
    pub fn ended(&self) -> impl Future<Output = LeaseEnd> + Send + use<> {
        self.lease.ended()
    }

    /// Makes the lease run out `by` from now: see [`Lease::extend`]. Renewal does this by itself.
    ///
    /// # Errors
    /// The future's, as [`Lease::extend`].
    pub fn extend(&self, by: Duration) -> SettleFuture {
        self.lease.extend(by)
    }

    /// Resolves when the worker shuts down, so that a long handler can come to an end before the
    /// deadline.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            // A worker that is gone is one that has shut down.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.about.fmt(f)
    }
}
