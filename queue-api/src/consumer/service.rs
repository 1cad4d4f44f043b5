//! A `tower::Service` as a handler.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context as Poller, Poll, ready},
};

use pin_project::pin_project;
use tower_service::Service;

use super::{Context, Failure, Handler};

/// The request that a service gets for each message.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    #[allow(refining_impl_trait)] // so that users can name the future
    fn handle(&self, message: T, context: Context) -> ServiceFuture<T, S> {
        // A clone that panicked did not change the service.
        let service = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ServiceFuture {
            state: State::Waiting {
                service: service.clone(),
                request: Some(Request { message, context }),
            },
        }
    }
}

/// The future of a [`ServiceHandler`]. It waits until the service is ready, and calls it.
///
/// Dropping it cancels the call, as tower's services expect.
#[pin_project]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ServiceFuture<T, S: Service<Request<T>>> {
    #[pin]
    state: State<T, S, S::Future>,
}

#[pin_project(project = StateProjection)]
enum State<T, S, F> {
    Waiting {
        service: S,
        /// `None` after the call.
        request: Option<Request<T>>,
    },
    Running {
        #[pin]
        future: F,
    },
}

impl<T, S> Future for ServiceFuture<T, S>
where
    S: Service<Request<T>>,
    S::Error: Into<Failure>,
{
    type Output = Result<(), Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let future = match state.as_mut().project() {
                StateProjection::Waiting { service, request } => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let request = request.take();
                    service.call(request.expect("it is not polled after it was ready"))
                }
                StateProjection::Running { future } => {
                    let done = ready!(future.poll(cx));
                    return Poll::Ready(done.map(drop).map_err(Into::into));
                }
            };
            state.set(State::Running { future });
        }
    }
}

impl<T, S: Service<Request<T>>> fmt::Debug for ServiceFuture<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceFuture")
    }
}

impl<S> fmt::Debug for ServiceHandler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceHandler")
    }
}
