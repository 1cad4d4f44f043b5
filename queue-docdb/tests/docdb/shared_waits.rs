//! What many waits of one instance cost. They share their looks at the queue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use mongodb::event::command::CommandEvent;
use mongodb_test_server::documentdb::Engines;
use queue_api::{Queue, consumer::ListenOptions};
use queue_docdb::{DocDbBackend, DocDbBuilder};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::{
    fixture::{Fixture, MINUTE, SECOND, applied, message, name, queue_of},
    waking::{STREAMING, open_stream},
};

tests! {
    on_one_thread:
        a_wait_that_is_not_polled_does_not_delay_the_others_for_long;
    on_threads:
        a_message_for_many_workers_takes_as_few_commands_as_for_one,
        every_wait_returns_while_nobody_leases_the_message,
        one_look_serves_all_waits
}

const WORKERS: usize = 100;

/// One worker alone sends an insert, a find by its wait, a find and an update by its lease, a delete,
/// and finds by its next lease and wait; a change stream adds a find.
const ENOUGH: usize = 25;

/// The numbers of commands by name, without those of the change stream.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, usize>>>);

impl Counts {
    async fn of(&self, builder: impl FnOnce(Self) -> DocDbBuilder) -> DocDbBackend {
        let backend = builder(self.clone()).connect().await.unwrap();
        backend.prepare(&name()).await.unwrap();
        backend
    }

    fn see(&self, event: &CommandEvent) {
        if let CommandEvent::Started(started) = event
            && !["aggregate", "getMore"].contains(&started.command_name.as_str())
        {
            let mut counts = self.0.lock().unwrap();
            *counts.entry(started.command_name.clone()).or_default() += 1;
        }
    }

    fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Returns when nothing has been sent for half a second.
    #[allow(clippy::disallowed_methods)]
    async fn quiet(&self) {
        loop {
            let before = self.0.lock().unwrap().clone();
            sleep(SECOND / 2).await;
            if *self.0.lock().unwrap() == before {
                return;
            }
        }
    }
}

/// Listeners on one queue, each with one lease at a time. Says when a message was acked.
fn listeners(queue: &Queue, count: usize) -> (JoinSet<()>, mpsc::UnboundedReceiver<()>) {
    let (done, acked) = mpsc::unbounded_channel();
    let mut all = JoinSet::new();
    for _ in 0..count {
        let (queue, done) = (queue.clone(), done.clone());
        all.spawn(async move {
            let mut listener = queue.listen(ListenOptions::new(1)).unwrap();
            while let Some(lease) = listener.next().await {
                applied(lease.ack()).await;
                done.send(()).unwrap();
            }
        });
    }
    (all, acked)
}

async fn a_message_for_many_workers_takes_as_few_commands_as_for_one() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    for workers in [1, WORKERS] {
        let counts = Counts::default();
        let backend = counts
            .of(|counts| fixture.watched_and_streaming(move |event| counts.see(event)))
            .await;
        let (all, mut acked) = listeners(&queue_of(&backend), workers);
        open_stream(&fixture).await;
        counts.quiet().await;
        counts.take();
        for (where_from, sender) in [("here", queue_of(&backend)), ("there", fixture.queue())] {
            sender.enqueue(&message(where_from)).await.unwrap();
            acked.recv().await.unwrap();
            counts.quiet().await;
            let sent = counts.take();
            let total: usize = sent.values().sum();
            assert!(
                total < ENOUGH,
                "{workers} workers, enqueued {where_from}: {total} commands, {sent:?}"
            );
        }
        drop(all);
    }
}

fn waits(queue: &Queue, count: usize) -> Vec<JoinHandle<queue_api::Result<()>>> {
    let wait = |_| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.wait(60 * MINUTE).await })
    };
    (0..count).map(wait).collect()
}

/// A wait that returns gives no promise to lease: its caller may be dropped.
async fn every_wait_returns_while_nobody_leases_the_message() {
    let fixture = Fixture::new().await;
    let counts = Counts::default();
    let backend = counts
        .of(|counts| fixture.watched(move |event| counts.see(event)))
        .await;
    let queue = queue_of(&backend);
    let waits = waits(&queue, WORKERS);
    while counts.take().is_empty() {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    queue.enqueue(&message("a")).await.unwrap();
    for wait in join_all(waits).await {
        wait.unwrap().unwrap();
    }
    let took = began.elapsed();
    assert!(took < 5 * SECOND, "{took:?}");
    let sent = counts.take();
    assert!(sent["find"] < ENOUGH, "{sent:?}");
}

/// Sleeps because pauses between looks are in real time.
#[allow(clippy::disallowed_methods)]
async fn one_look_serves_all_waits() {
    let fixture = Fixture::new().await;
    let counts = Counts::default();
    let backend = counts
        .of(|counts| fixture.watched(move |event| counts.see(event)))
        .await;
    let queue = queue_of(&backend);
    let waits = waits(&queue, WORKERS);
    sleep(5 * SECOND).await;
    let sent = counts.take();
    assert!(sent["find"] < ENOUGH, "in five seconds: {sent:?}");
    // A message that becomes due wakes them as one that comes in.
    let late = message("late").with_delay(MINUTE);
    queue.enqueue(&late).await.unwrap();
    fixture.clock.advance(MINUTE);
    for wait in join_all(waits).await {
        wait.unwrap().unwrap();
    }
}

/// One wait holds the look that others would share, and its future is not polled.
async fn a_wait_that_is_not_polled_does_not_delay_the_others_for_long() {
    let fixture = Fixture::new().await;
    fixture.backend.prepare(&name()).await.unwrap();
    let queue = fixture.queue();
    for _ in 0..3 {
        let mut idle = Box::pin(queue.wait(60 * MINUTE));
        let polled = futures::poll!(&mut idle);
        assert!(polled.is_pending());
        let began = Instant::now();
        queue.enqueue(&message("a")).await.unwrap();
        queue.wait(60 * MINUTE).await.unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        let leased = queue.lease().await.unwrap().expect("ready");
        applied(queue.ack(&leased.receipt)).await;
    }
}
