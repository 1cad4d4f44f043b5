//! A `tower::Service` as a handler.

use std::{
    fmt,
    future::poll_fn,
    sync::{Mutex, PoisonError},
};

use tower_service::Service;

use super::{Context, Failure, Handler};

/// What a service is called with.
#[derive(Clone, Debug)]
pub struct Request<T> {
    /// The decoded payload.
    pub message: T,
    /// What else is known of the message.
    pub context: Context,
}

/// Makes a handler of a [`tower::Service`](Service), so that tower's layers for limits, timeouts
/// and the like apply (feature `tower`).
///
/// The service is cloned for each message, as servers do for each connection, and asked whether
/// it is ready; while it is not, the message's lease is kept up. Layers that share a limit among
/// the clones of a service, such as tower's `ConcurrencyLimitLayer`, limit all messages together.
///
/// A service's error is retried as the worker's policy says; one whose error is [`Failure`]
/// decides by itself.
pub struct ServiceHandler<S>(
    /// A mutex because a service need not be `Sync`; it is held for the length of a clone.
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
            // Cloning leaves nothing half done, so a clone that panicked has broken nothing.
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
