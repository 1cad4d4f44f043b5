//! A tower service that panics at one place.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use queue_api::{Queue, Result, consumer::Request};
use tower::Service;

use crate::{
    code::{HandlerError, Message, PanicsOnDrop, Place},
    worker::handle,
    world::World,
};

pub(crate) struct Panicking {
    world: Arc<World>,
    queue: Queue,
    _dropped: PanicsOnDrop,
}

impl Panicking {
    pub(crate) fn new(world: Arc<World>, queue: Queue) -> Self {
        Self {
            _dropped: world.code.dropped(Place::ServiceDrop),
            world,
            queue,
        }
    }
}

impl Clone for Panicking {
    fn clone(&self) -> Self {
        self.world.code.at(Place::ServiceClone);
        Self::new(self.world.clone(), self.queue.clone())
    }
}

impl Service<Request<Message>> for Panicking {
    type Response = ();
    type Error = HandlerError;
    type Future = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        self.world.code.at(Place::ServiceReady);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        self.world.code.at(Place::ServiceCall);
        let (world, queue) = (self.world.clone(), self.queue.clone());
        Box::pin(async move {
            world.code.at(Place::ServicePoll);
            handle(world, queue, request.message, request.context).await
        })
    }
}
