//! The function that a worker calls for each message.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{Failure, Lease, LeaseEnd, SettleFuture, lease::Extender};
use crate::{Headers, MessageId};

/// What a [`Worker`](super::Worker) does with each message: a value with an async method, or an async
/// function.
///
/// `Ok` acks the message. An error or a panic becomes a [`Failure`].
///
/// Implement it for a type that holds what the handler needs. One value handles all messages, several
/// at a time.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::{Queue, consumer::{Context, Failure, Handler, Worker}};
/// # use queue_memory::MemoryBackend;
///
/// struct Greeter {
///     greeting: String,
///     replies: Queue,
/// }
///
/// impl Handler<String> for Greeter {
///     async fn handle(&self, name: String, _context: Context) -> Result<(), Failure> {
///         let text = format!("{}, {name}", self.greeting);
///         self.replies.typed().enqueue(&text).await?;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> queue_api::Result<()> {
/// # let backend = Arc::new(MemoryBackend::new());
/// # let (names, replies) = (Queue::new(backend.clone(), "names")?, Queue::new(backend, "replies")?);
/// names.typed().enqueue(&"Ada".to_owned()).await?;
/// let greeter = Greeter { greeting: "hello".into(), replies: replies.clone() };
/// Worker::new(names, greeter).run_until_idle().await?;
/// let reply = replies.lease().await?.expect("one is ready");
/// assert_eq!(reply.payload, "\"hello, Ada\"");
/// # Ok(())
/// # }
/// ```
///
/// A closure that captures its state clones it for each message. A function has no state:
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// use queue_api::consumer::{Context, Failure, Handler};
///
/// fn takes_a_handler(_: impl Handler<String>) {}
///
/// let seen = Arc::new(AtomicU32::new(0));
/// takes_a_handler(move |name: String, _: Context| {
///     let seen = seen.clone();
///     async move {
///         seen.fetch_add(1, Ordering::Relaxed);
///         std::fs::remove_file(&name) // any error will do
///     }
/// });
///
/// async fn greet(name: String, context: Context) -> Result<(), Failure> {
///     println!("hello {name}, for the {}. time", context.attempt());
///     Ok(())
/// }
/// takes_a_handler(greet);
/// ```
///
/// `Arc<H>` is a handler, to share one with other code. [`BoxHandler`] is a handler whose type does not
/// name what it contains.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of `{T}`",
    label = "not a handler of `{T}`",
    note = "a handler is a type with `impl Handler<{T}>`, an `Arc` or `BoxHandler` of one, or \
            `async fn(message: {T}, context: Context) -> Result<(), E>`",
    note = "the function is `Fn + Send + Sync + 'static`, its future is `Send`, and `E` converts to \
            `Failure`, as all errors do"
)]
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

impl<T: Send + 'static, H: Handler<T>> Handler<T> for Arc<H> {
    async fn handle(&self, message: T, context: Context) -> Result<(), Failure> {
        H::handle(self, message, context).await
    }
}

/// A [`Handler`] of any type, in a box. Use it for the field of a struct, or to choose a handler at
/// run time.
///
/// ```
/// use queue_api::{Queue, consumer::{BoxHandler, Context, Failure, Worker}};
///
/// struct Service {
///     worker: Worker<String, BoxHandler<String>>,
/// }
///
/// fn service(queue: Queue, dry_run: bool) -> Service {
///     let handler = match dry_run {
///         true => BoxHandler::new(|_: String, _: Context| async { Ok::<_, Failure>(()) }),
///         false => BoxHandler::new(|path: String, _: Context| async { std::fs::remove_file(path) }),
///     };
///     Service { worker: Worker::new(queue, handler) }
/// }
/// ```
pub struct BoxHandler<T>(Box<dyn AnyHandler<T>>);

impl<T: Send + 'static> BoxHandler<T> {
    /// Puts `handler` in a box.
    pub fn new(handler: impl Handler<T>) -> Self {
        Self(Box::new(handler))
    }
}

impl<T: Send + 'static> Handler<T> for BoxHandler<T> {
    async fn handle(&self, message: T, context: Context) -> Result<(), Failure> {
        self.0.handle_boxed(message, context).await
    }
}

impl<T> fmt::Debug for BoxHandler<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxHandler")
    }
}

/// [`Handler`] as a trait object.
trait AnyHandler<T>: Send + Sync + 'static {
    fn handle_boxed(&self, message: T, context: Context) -> Handling<'_>;
}

type Handling<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

impl<T: 'static, H: Handler<T>> AnyHandler<T> for H {
    fn handle_boxed(&self, message: T, context: Context) -> Handling<'_> {
        Box::pin(self.handle(message, context))
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
