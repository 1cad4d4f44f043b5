//! What runs on the store that fails.

use std::{sync::Arc, time::Duration};

use queue_test_support::Operation;

use crate::{
    calls,
    code::Place,
    enqueue_all, listener, worker,
    world::{SECOND, World},
};

/// What calls the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Tasks that call through [`queue_api::Batching`] at the same time.
    Batching,
    /// Such tasks without batching.
    Direct,
    Listener,
    TypedListener,
    /// A worker whose calls are batched.
    BatchingWorker,
    Worker,
    /// A worker that runs until it is idle, again and again.
    IdleWorker,
    /// Workers of two queues.
    Workers,
    /// A worker whose handler is a tower service.
    Service,
    EnqueueAll,
}

impl Subject {
    pub(crate) const ALL: [Self; 10] = [
        Self::Batching,
        Self::Direct,
        Self::Listener,
        Self::TypedListener,
        Self::BatchingWorker,
        Self::Worker,
        Self::IdleWorker,
        Self::Workers,
        Self::Service,
        Self::EnqueueAll,
    ];

    /// Whether it makes calls of this kind.
    pub(crate) fn calls(self, operation: Operation) -> bool {
        if self == Self::Service {
            return false; // A handler as others.
        }
        match operation {
            Operation::Enqueue => true,
            Operation::Lease | Operation::Ack | Operation::Change => self != Self::EnqueueAll,
            Operation::Wait => !matches!(self, Self::EnqueueAll | Self::IdleWorker),
            Operation::Stats => matches!(self, Self::Batching | Self::Direct),
        }
    }

    /// Whether its error hook is told of each failure of such a call.
    pub(crate) fn reports(self, operation: Operation) -> bool {
        let has_hook = !matches!(self, Self::Batching | Self::Direct | Self::EnqueueAll);
        has_hook && operation != Operation::Enqueue
    }

    /// Whether it calls code of the application there.
    pub(crate) fn runs(self, place: Place) -> bool {
        let is_of = |parts: &[&str]| parts.iter().any(|part| place.is_of(part));
        let observers = ["Recorder", "Subscriber"];
        let own: &[&str] = match self {
            Self::Batching | Self::Direct => &["PropagatorInject", "Encode", "Decode"],
            Self::Listener => &["Clock", "ErrorHook"],
            Self::TypedListener => &["Decode"],
            Self::BatchingWorker | Self::IdleWorker => return false,
            Self::Worker => {
                let others = ["Service", "Stream", "Encode"];
                return !is_of(&others);
            }
            Self::Workers => return is_of(&["Shutdown", "Clock", "Handler"]),
            Self::Service => return is_of(&["Service"]),
            Self::EnqueueAll => &["StreamPoll"],
        };
        let makes_spans = matches!(self, Self::Batching | Self::Direct);
        match place {
            // Only a worker links and records, and without a failure no line is logged.
            Place::SubscriberRecord => false,
            Place::SubscriberEvent | Place::SubscriberEventEnabled => {
                matches!(self, Self::Listener | Self::TypedListener)
            }
            Place::SubscriberNewSpan
            | Place::SubscriberEnter
            | Place::SubscriberExit
            | Place::SubscriberClose => makes_spans,
            _ => is_of(own) || is_of(&observers),
        }
    }

    pub(crate) async fn run(self, world: &Arc<World>) {
        match self {
            Self::Batching => calls::batching(world).await,
            Self::Direct => calls::direct(world).await,
            Self::Listener => listener::plain(world).await,
            Self::TypedListener => listener::typed(world).await,
            Self::BatchingWorker => worker::batching(world).await,
            Self::Worker => worker::one(world).await,
            Self::IdleWorker => worker::until_idle(world).await,
            Self::Workers => worker::several(world).await,
            Self::Service => worker::service(world).await,
            Self::EnqueueAll => enqueue_all::all(world).await,
        }
    }
}

/// Awaits what has to end. `None`, and a problem, if it does not end within `time`.
pub(crate) async fn ends<F: Future>(
    world: &World,
    what: &str,
    time: Duration,
    future: F,
) -> Option<F::Output> {
    let ended = tokio::time::timeout(time, future).await.ok();
    if ended.is_none() {
        world.problem(format!("{what} does not end within {time:?}"));
    }
    ended
}

/// How long it takes at most to stop: a lease call in flight is given up after 70 s, and a
/// settlement when its leases have expired.
pub(crate) const STOP: Duration = SECOND.saturating_mul(150);
