//! Listeners.

use std::{future::Future, sync::Arc};

use queue_api::{
    LeaseOutcome, Queue, TypedListener,
    consumer::{Lease, ListenOptions, Listener, SettleFuture},
};
use tokio::task::JoinSet;

use crate::{
    code::{Place, Text},
    subject::{STOP, ends},
    worker::work,
    world::{Kind, SECOND, VISIBILITY, World, message},
};

/// How long a settlement takes at most. A call that hangs is given up when its leases have expired,
/// and they may be extended.
const SETTLE: std::time::Duration = VISIBILITY.saturating_mul(5);

async fn settled(world: &World, settlement: SettleFuture) -> Option<LeaseOutcome> {
    match ends(world, "a settlement", SETTLE, settlement).await? {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            world.error(&error);
            None
        }
    }
}

async fn handle(world: Arc<World>, queue: Queue, lease: Lease) {
    let id = lease.id().clone();
    let first = world.begins(&id) == 0;
    let settlement = match Kind::of(&id) {
        Kind::Retry if first => lease.nack(SECOND),
        Kind::Panic if first => return drop(lease),
        Kind::Release if first => lease.release(),
        Kind::Dead => lease.dead_letter("it is dead"),
        kind => {
            match kind {
                Kind::Extend => drop(settled(&world, lease.extend(VISIBILITY * 2)).await),
                // It is renewed meanwhile.
                Kind::Long => world.pause(VISIBILITY * 3 / 2).await,
                Kind::Parent => {
                    let child = message(&format!("Plain-child-of-{id}"));
                    let enqueued = tokio::time::timeout(SECOND * 60, queue.enqueue(&child));
                    if !matches!(enqueued.await, Ok(Ok(_))) {
                        return drop(lease);
                    }
                }
                _ => {}
            }
            world.handled(&id);
            lease.ack()
        }
    };
    settled(&world, settlement).await;
}

/// Both kinds of listeners.
trait Source: Send + 'static {
    fn next(&mut self) -> impl Future<Output = Option<Vec<Lease>>> + Send;
    fn stop(&self) -> impl Future<Output = ()> + Send;
    fn drain(self) -> impl Future<Output = ()> + Send;
}

impl Source for Listener {
    async fn next(&mut self) -> Option<Vec<Lease>> {
        self.next_batch(2).await
    }

    async fn stop(&self) {
        Self::stop(self).await;
    }

    async fn drain(self) {
        Self::drain(self).await;
    }
}

impl Source for TypedListener<String, Text> {
    async fn next(&mut self) -> Option<Vec<Lease>> {
        let decoded = Self::next(self).await?;
        // What does not decode comes back.
        Some(decoded.map(|decoded| decoded.lease).into_iter().collect())
    }

    async fn stop(&self) {
        Self::stop(self).await;
    }

    async fn drain(self) {
        Self::drain(self).await;
    }
}

async fn run(world: &Arc<World>, mut source: impl Source) {
    let mut handlers = JoinSet::new();
    let queue = world.queue("q");
    let working = async {
        while let Some(leases) = source.next().await {
            for lease in leases {
                let (world, queue) = (world.clone(), queue.clone());
                handlers.spawn(async move {
                    let handled = tokio::spawn(handle(world.clone(), queue, lease));
                    if let Err(error) = handled.await
                        && !error.to_string().contains("a fault of the test")
                    {
                        world.problem(format!("a call of a lease panicked: {error}"));
                    }
                });
            }
        }
        world.problem("the stream ended without being stopped");
    };
    tokio::select! {
        () = work(world, &["q"], 0) => {}
        () = working => {}
    }
    ends(world, "the stop", STOP, source.stop()).await;
    ends(world, "the last handlers", STOP, handlers.join_all()).await;
    ends(world, "the drain", STOP, source.drain()).await;
}

fn options(world: &Arc<World>) -> ListenOptions {
    let hook = world.clone();
    ListenOptions::new(3)
        .with_clock(world.own_clock())
        .with_error_hook(move |error| {
            hook.error(error);
            hook.code.at(Place::ErrorHook);
        })
}

pub(crate) async fn plain(world: &Arc<World>) {
    let listener = world.queue("q").listen(options(world)).unwrap();
    run(world, listener).await;
}

pub(crate) async fn typed(world: &Arc<World>) {
    let queue = world
        .queue("q")
        .typed_with::<String, _>(Text(world.code.clone()));
    run(world, queue.listen(options(world)).unwrap()).await;
}
