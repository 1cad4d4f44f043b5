//! Tasks that call a queue at the same time, with and without batching.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use queue_api::{
    Batching, Clock, Delivery, EnqueueOutcome, LeaseOptions, LeaseOutcome, MessageId, Queue, Result,
};
use tokio::task::JoinSet;

use crate::{
    code::{Place, Text},
    worker::work,
    world::{Kind, SECOND, VISIBILITY, World, message},
};

/// A caller drops a call after this time. It is longer than a batch waits for one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const TASKS: usize = 4;
const MESSAGES: usize = 3;

/// Calls of one subject.
struct Calls {
    world: Arc<World>,
    queue: Queue,
    batching: bool,
    /// Messages that an enqueue was tried for.
    tried: Mutex<BTreeSet<MessageId>>,
    dropped: AtomicUsize,
}

impl Calls {
    /// The answer of a call. `None` if it failed: it may have taken effect.
    async fn call<T>(&self, what: &str, call: impl Future<Output = Result<T>>) -> Option<T> {
        let world = &self.world;
        let mended = world.is_mended();
        let call = AssertUnwindSafe(call).catch_unwind();
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(Ok(answer))) => return Some(answer),
            Ok(Ok(Err(error))) => {
                world.error(&error);
                if mended && error.to_string().contains("a fault of the test") {
                    world.problem(format!("{what} fails when the store is mended: {error:?}"));
                }
            }
            Ok(Err(_)) if !self.may_panic(what) => {
                world.problem(format!("{what} panics in a caller"));
            }
            Ok(Err(_)) => {}
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                if mended {
                    world.problem(format!("{what} hangs when the store is mended"));
                }
            }
        }
        world.pause(SECOND * 5).await;
        None
    }

    /// A panic of the store reaches its caller; batching forwards only some calls as they are. So does
    /// one of a codec that encodes.
    fn may_panic(&self, what: &str) -> bool {
        match self.world.code.place() {
            Some(place) => place == Place::Encode,
            None => !self.batching || matches!(what, "wait" | "stats"),
        }
    }

    async fn enqueue(&self, id: &str) -> Option<()> {
        let typed = self.queue.typed_with(Text(self.world.code.clone()));
        let own = message(id);
        let enqueue = async {
            let payload = typed.message(&id.to_owned())?.payload;
            self.queue.enqueue(&own.clone().with_payload(payload)).await
        };
        let is_new = self.tried.lock().unwrap().insert(own.id.clone());
        let outcome = self.call("enqueue", enqueue).await?;
        if is_new && outcome == EnqueueOutcome::Duplicate {
            let problem = format!("{id} is a duplicate at the first attempt");
            self.world.problem(problem);
        }
        Some(())
    }

    async fn produce(&self, task: usize) {
        for number in 0..MESSAGES {
            while self
                .enqueue(&format!("Plain-{task}-{number}"))
                .await
                .is_none()
            {}
        }
    }

    async fn consume(&self) {
        loop {
            let _ = self.call("stats", self.queue.stats()).await;
            let typed = self
                .queue
                .typed_with::<String, _>(Text(self.world.code.clone()));
            let leased = self
                .call("lease", typed.lease_batch(&LeaseOptions::new(2)))
                .await;
            if leased.as_ref().is_some_and(Vec::is_empty) {
                let _ = self.call("wait", self.queue.wait(SECOND * 20)).await;
                // It may end early for no reason.
                self.world.pause(SECOND / 10).await;
            }
            for decoded in leased.into_iter().flatten() {
                match decoded {
                    Ok(decoded) => self.handle(decoded.delivery).await,
                    Err(undecodable) => {
                        let nack = self.queue.nack(&undecodable.delivery.receipt, SECOND);
                        let _ = self.call("nack", nack).await;
                    }
                }
            }
        }
    }

    async fn handle(&self, delivery: Delivery) {
        let is_leased = || delivery.lease_expires_at > self.world.clock.now();
        if !is_leased() {
            return; // Another consumer may have it.
        }
        let (world, queue, receipt) = (&self.world, &self.queue, &delivery.receipt);
        let id = delivery.id.clone();
        let first = world.begins(&id) == 0;
        let outcome = match Kind::of(&id) {
            Kind::Retry if first => self.call("nack", queue.nack(receipt, SECOND)).await,
            Kind::Panic if first => return,
            Kind::Release if first => self.call("release", queue.release(receipt)).await,
            Kind::Dead => {
                self.call("dead_letter", queue.dead_letter(receipt, "dead"))
                    .await
            }
            kind => {
                match kind {
                    Kind::Extend => {
                        let extended = queue.extend(receipt, VISIBILITY * 2);
                        let _ = self.call("extend", extended).await;
                    }
                    Kind::Long => world.pause(VISIBILITY / 2).await,
                    Kind::Parent => {
                        let child = format!("Plain-child-of-{id}");
                        if self.enqueue(&child).await.is_none() {
                            return;
                        }
                    }
                    _ => {}
                }
                world.handled(&id);
                self.call("ack", queue.ack(receipt)).await
            }
        };
        if outcome == Some(LeaseOutcome::Lost) && is_leased() {
            world.problem(format!("{id} is lost at the first attempt"));
        }
    }
}

async fn run(world: &Arc<World>, queue: Queue, batching: bool) {
    let calls = Arc::new(Calls {
        world: world.clone(),
        queue,
        batching,
        tried: Mutex::default(),
        dropped: AtomicUsize::new(0),
    });
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (producer, consumer) = (calls.clone(), calls.clone());
        tasks.spawn(async move { producer.produce(task).await });
        tasks.spawn(async move { consumer.consume().await });
    }
    work(world, &["q"], TASKS * MESSAGES).await;
    // The others of its batch wait for a call that hangs, and nobody else.
    let hanging = world.case.trouble.hangs();
    let sizes = hanging.map(|operation| world.faulty.calls(operation));
    let size = sizes.and_then(|sizes| sizes.get(world.case.skip).copied());
    let allowed = size.map_or(0, |size| size.max(1));
    let dropped = calls.dropped.load(Ordering::Relaxed);
    if (world.case.once || hanging.is_none()) && dropped > allowed {
        world.problem(format!(
            "{dropped} calls hang, although one of {allowed} does"
        ));
    }
}

pub(crate) async fn batching(world: &Arc<World>) {
    let batching = Arc::new(Batching::new(world.backend.clone()));
    run(world, world.queue_on(batching, "q"), true).await;
}

pub(crate) async fn direct(world: &Arc<World>) {
    run(world, world.queue("q"), false).await;
}
