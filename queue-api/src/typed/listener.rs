//! A stream of leases with decoded payloads.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use super::{Codec, CodecError, Json, TypedQueue, decode};
use crate::{
    Result,
    consumer::{Lease, ListenOptions, Listener},
};

impl<T, C: Codec<T> + Clone> TypedQueue<T, C> {
    /// Returns a stream of leases with decoded payloads. See [`Queue::listen`](crate::Queue::listen).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use queue_api::{Queue, consumer::ListenOptions};
    /// use queue_memory::MemoryBackend;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> queue_api::Result<()> {
    /// let orders = Queue::new(Arc::new(MemoryBackend::new()), "orders")?.typed::<u32>();
    /// orders.enqueue(&2041).await?;
    ///
    /// let mut listener = orders.listen(ListenOptions::new(8))?;
    /// match listener.next().await.expect("not stopped") {
    ///     Ok(order) => {
    ///         assert_eq!(order.value, 2041);
    ///         assert!(order.lease.ack().await?.is_applied());
    ///     }
    ///     Err(undecodable) => {
    ///         let reason = undecodable.source.to_string();
    ///         assert!(undecodable.lease.dead_letter(reason).await?.is_applied());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Queue::listen`](crate::Queue::listen).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn listen(&self, options: ListenOptions) -> Result<TypedListener<T, C>> {
        Ok(TypedListener {
            listener: self.queue.listen(options)?,
            codec: self.codec.clone(),
            payload: self.payload,
        })
    }
}

/// A [`Listener`] that decodes the payloads. [`TypedQueue::listen`] makes it.
///
/// A payload that cannot be decoded is an [`UndecodableLease`], and does not end the stream.
pub struct TypedListener<T, C = Json> {
    listener: Listener,
    codec: C,
    payload: std::marker::PhantomData<fn(T) -> T>,
}

/// A lease with its decoded payload.
#[derive(Debug)]
#[non_exhaustive]
pub struct TypedLease<T> {
    /// The decoded payload.
    pub value: T,
    /// The lease. Settle it.
    pub lease: Lease,
}

/// A lease whose payload cannot be decoded, perhaps because a newer version of your program sent it.
///
/// It is still leased and renewed, so settle it. If you drop it, the message comes back after
/// [`Lease::RELEASE_DELAY`].
#[derive(Debug, thiserror::Error)]
#[error("the payload of message {} cannot be decoded", lease.id())]
#[non_exhaustive]
pub struct UndecodableLease {
    /// The lease with this payload.
    pub lease: Box<Lease>,
    /// The error of the codec.
    #[source]
    pub source: CodecError,
}

impl<T, C: Codec<T> + Unpin> TypedListener<T, C> {
    /// The next lease, or `None` after the end of the stream. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<Result<TypedLease<T>, UndecodableLease>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<T, C> TypedListener<T, C> {
    /// Ends the stream at once: see [`Listener::stop`].
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<T, C> {
        self.listener.stop()
    }

    /// Stops, and waits until all leases are settled or dropped and the store has answered.
    pub async fn drain(self) {
        self.listener.drain().await;
    }
}

impl<T, C: Codec<T> + Unpin> Stream for TypedListener<T, C> {
    type Item = Result<TypedLease<T>, UndecodableLease>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.listener).poll_next(cx));
        Poll::Ready(
            next.map(|lease| match decode(&self.codec, lease.payload()) {
                Ok(value) => Ok(TypedLease { value, lease }),
                Err(source) => {
                    let lease = Box::new(lease);
                    Err(UndecodableLease { lease, source })
                }
            }),
        )
    }
}

impl<T, C: fmt::Debug> fmt::Debug for TypedListener<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedListener")
            .field("listener", &self.listener)
            .field("codec", &self.codec)
            .finish()
    }
}
