//! The function that a worker calls for each message.

use std::{fmt, future::Future, sync::Arc, time::Duration, time::SystemTime};

use tokio::sync::watch;

use super::{Failure, Lease, LeaseEnd, SettleFuture, lease::Extender};
use crate::{Headers, MessageId};

/// An async function of the decoded payload and a [`Context`]. A [`Worker`](super::Worker) calls it
/// for each message.
///
/// `Ok` acks the message. An error or a panic becomes a [`Failure`].
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
    /// Handles one message. The worker drops the future at the time limit and at the shutdown
    /// deadline, which may be at any await point.
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

/// The message's metadata, and what a handler can do with its lease. The worker settles it.
#[derive(Clone)]
pub struct Context {
    message: Arc<MessageInfo>,
    lease: Extender,
    stopping: watch::Receiver<bool>,
}

#[derive(Debug)]
struct MessageInfo {
    id: MessageId,
    headers: Headers,
    attempt: u32,
    max_attempts: u32,
    enqueued_at: SystemTime,
}

impl Context {
    pub(super) fn new(lease: &Lease, stopping: watch::Receiver<bool>) -> Self {
        let message = MessageInfo {
            id: lease.id().clone(),
            headers: lease.headers().clone(),
            attempt: lease.attempt(),
            max_attempts: lease.max_attempts(),
            enqueued_at: lease.enqueued_at(),
        };
        Self {
            message: Arc::new(message),
            lease: lease.extender(),
            stopping,
        }
    }

    /// The message's id. It is the same at every delivery, so use it to recognise repeats.
    pub fn id(&self) -> &MessageId {
        &self.message.id
    }

    /// The headers that were enqueued.
    pub fn headers(&self) -> &Headers {
        &self.message.headers
    }

    /// Delivery number, from 1.
    pub fn attempt(&self) -> u32 {
        self.message.attempt
    }

    /// The number of deliveries after which the message becomes a dead letter.
    pub fn max_attempts(&self) -> u32 {
        self.message.max_attempts
    }

    /// When the message was enqueued, by the backend's clock.
    pub fn enqueued_at(&self) -> SystemTime {
        self.message.enqueued_at
    }

    /// Resolves when another consumer may have the message, so that the handler can stop its side
    /// effects: see [`Lease::ended`]. The worker does not cancel the handler. If no other consumer
    /// has the message, the ack still succeeds.
    pub fn ended(&self) -> impl Future<Output = LeaseEnd> + Send + use<> {
        self.lease.ended()
    }

    /// Sets the lease to expire `by` from now: see [`Lease::extend`]. The worker renews leases by
    /// itself, so few handlers need this.
    ///
    /// # Errors
    /// The future's error: as [`Lease::extend`].
    pub fn extend(&self, by: Duration) -> SettleFuture {
        self.lease.extend(by)
    }

    /// Resolves when the worker shuts down, so that a long handler can finish before the deadline.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            // An error means that the worker was dropped.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}
