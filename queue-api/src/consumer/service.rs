//! A `tower::Service` as a handler.

use std::{
    fmt,
    future::poll_fn,
    sync::{Mutex, PoisonError},
};

use tower_service::Service;

use super::{Context, Failure, Handler};

/// The request that a service gets for each message.
#[derive(Clone, Debug)]
pub struct Request<T> {
    /// The decoded payload.
    pub message: T,
    /// The message's metadata.
    pub context: Context,
}

/// A [`tower::Service`](Service) as a handler, for example to use tower's layers for limits and
/// timeouts (feature `tower`).
///
/// Each message gets a clone of the service and waits until the clone is ready; meanwhile its lease
/// is renewed. Layers that share a limit among clones, such as tower's `ConcurrencyLimitLayer`,
/// limit all messages together.
///
/// The worker's policy decides on errors of the service, unless they are a [`Failure`].
pub struct ServiceHandler<S>(
    /// A mutex, because a service need not be `Sync`. It is held for a clone.
    Mutex<S>,
);

impl<S> ServiceHandler<S> {
    /// A handler that calls clones of `service`.
    pub fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<T, S> Handler<T> for ServiceHandler<S>
where
    T: Send + 'static,
    S: Service<Request<T>> + Clone + Send + 'static,
    S::Error: Into<Failure>,
    S::Future: Send,
{
    async fn handle(&self, message: T, context: Context) -> Result<(), Failure> {
        let mut service = {
            // A clone that panicked did not change the service.
            let service = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            service.clone()
        };
        poll_fn(|cx| service.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        let request = Request { message, context };
        service.call(request).await.map_err(Into::into)?;
        Ok(())
    }
}

impl<S> fmt::Debug for ServiceHandler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceHandler")
    }
}
