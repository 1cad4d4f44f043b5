//! What many waits of one instance cost. They share their polls of the queue.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::future::join_all;
use mongodb::{bson::doc, event::command::CommandEvent};
use mongodb_test_server::{MongoServer, ServerOptions, documentdb::Engines};
use queue_api::{Queue, consumer::ListenOptions};
use queue_docdb::{DocDbBackend, DocDbBuilder};
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    fixture::{Fixture, MINUTE, SECOND, applied, lease, message, name, queue_of},
    waking::{STREAMING, open_stream},
};

tests! {
    on_one_thread:
        a_wait_that_is_not_polled_does_not_delay_the_others_for_long,
        a_wait_that_is_not_polled_takes_no_time_from_the_operation_timeout,
        after_a_wait_that_is_not_polled_one_other_polls_for_all,
        a_wait_that_ends_before_it_may_poll_sends_nothing;
    on_threads:
        the_other_waits_look_soon_although_the_server_is_slow,
        a_message_for_many_workers_takes_as_few_commands_as_for_one,
        every_wait_returns_while_no_call_leases_the_message,
        one_poll_serves_all_waits,
        as_many_waits_return_as_a_batch_has_messages
}

const WORKERS: usize = 100;

/// One worker alone sends an insert, a find by its wait, a find and an update by its lease, a delete,
/// and finds by its next lease and wait; a change stream adds a find.
const ENOUGH: usize = 25;

/// The numbers of commands by name, without those of the change stream.
#[derive(Clone, Default)]
struct Counts {
    by_name: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Notified at each find.
    found: Arc<Notify>,
}

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
            let mut counts = self.by_name.lock().unwrap();
            *counts.entry(started.command_name.clone()).or_default() += 1;
            if started.command_name == "find" {
                self.found.notify_one();
            }
        }
    }

    fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.by_name.lock().unwrap())
    }

    /// Returns when nothing has been sent for half a second.
    #[allow(clippy::disallowed_methods)]
    async fn quiet(&self) {
        loop {
            let before = self.by_name.lock().unwrap().clone();
            sleep(SECOND / 2).await;
            if *self.by_name.lock().unwrap() == before {
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

/// A queue of another instance that polls, and the commands that it sends.
async fn counted(fixture: &Fixture) -> (Counts, Queue) {
    let counts = Counts::default();
    let backend = counts
        .of(|counts| fixture.watched(move |event| counts.see(event)))
        .await;
    (counts, queue_of(&backend))
}

fn waits(queue: &Queue, count: usize) -> Vec<JoinHandle<queue_api::Result<()>>> {
    let wait = |_| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.wait(60 * MINUTE).await })
    };
    (0..count).map(wait).collect()
}

/// A wait that returns gives no promise to lease: its caller may be dropped.
async fn every_wait_returns_while_no_call_leases_the_message() {
    let fixture = Fixture::new().await;
    let (counts, queue) = counted(&fixture).await;
    let waits = waits(&queue, WORKERS);
    soon(counts.found.notified()).await;
    counts.take();
    queue.enqueue(&message("a")).await.unwrap();
    for wait in soon(join_all(waits)).await {
        wait.unwrap().unwrap();
    }
    let sent = counts.take();
    assert!(sent["find"] < ENOUGH, "{sent:?}");
}

/// Sleeps because pauses between polls are in real time.
#[allow(clippy::disallowed_methods)]
async fn one_poll_serves_all_waits() {
    let fixture = Fixture::new().await;
    let (counts, queue) = counted(&fixture).await;
    let waits = waits(&queue, WORKERS);
    sleep(5 * SECOND).await;
    let sent = counts.take();
    assert!(sent["find"] < ENOUGH, "in five seconds: {sent:?}");
    // A message that becomes due wakes them as one that comes in.
    let late = message("late").with_delay(MINUTE);
    queue.enqueue(&late).await.unwrap();
    fixture.clock.advance(MINUTE);
    for wait in soon(join_all(waits)).await {
        wait.unwrap().unwrap();
    }
}

/// They share an entry.
async fn as_many_waits_return_as_a_batch_has_messages() {
    let fixture = Fixture::new().await;
    let (counts, queue) = counted(&fixture).await;
    let batch = |round: usize| (0..16).map(move |it| message(&format!("{round}-{it}")));
    // A claim learns how large entries are.
    queue
        .enqueue_batch(&batch(0).collect::<Vec<_>>())
        .await
        .unwrap();
    for delivery in lease(&queue, 16).await {
        applied(queue.ack(&delivery.receipt)).await;
    }
    let waits = waits(&queue, 16);
    counts.quiet().await;
    counts.take();
    queue
        .enqueue_batch(&batch(1).collect::<Vec<_>>())
        .await
        .unwrap();
    for wait in soon(join_all(waits)).await {
        wait.unwrap().unwrap();
    }
    let sent = counts.take();
    assert!(sent["find"] <= 3, "{sent:?}");
}

/// Fails the test instead of hanging. The bound is far beyond what a slow machine needs.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(MINUTE, what).await.expect("it hangs")
}

/// A wait that has sent its find and is then not polled.
async fn not_polled(queue: &Queue) -> Pin<Box<dyn Future<Output = queue_api::Result<()>> + '_>> {
    let mut idle: Pin<Box<dyn Future<Output = _>>> = Box::pin(queue.wait(60 * MINUTE));
    assert!(futures::poll!(&mut idle).is_pending());
    idle
}

async fn a_wait_that_is_not_polled_does_not_delay_the_others_for_long() {
    let fixture = Fixture::new().await;
    fixture.backend.prepare(&name()).await.unwrap();
    let queue = fixture.queue();
    for _ in 0..3 {
        let _idle = not_polled(&queue).await;
        queue.enqueue(&message("a")).await.unwrap();
        soon(queue.wait(60 * MINUTE)).await.unwrap();
        let leased = queue.lease().await.unwrap().expect("ready");
        applied(queue.ack(&leased.receipt)).await;
    }
}

/// Also for messages that come in meanwhile.
#[allow(clippy::disallowed_methods)]
async fn the_other_waits_look_soon_although_the_server_is_slow() {
    let server = MongoServer::start_dedicated(ServerOptions::new()).await;
    let server = server.unwrap();
    let connect = async |name: &str| {
        let builder = DocDbBackend::builder(server.uri()).database("shop");
        let builder = builder.application_name(name).without_change_stream();
        builder.connect().await.unwrap()
    };
    let (here, there) = (connect("slow").await, connect("fast").await);
    here.prepare(&name()).await.unwrap();
    let slow = doc! {
        "configureFailPoint": "failCommand",
        "mode": "alwaysOn",
        "data": {
            "failCommands": ["find"],
            "blockConnection": true,
            "blockTimeMS": 800,
            "appName": "slow",
        },
    };
    let client = mongodb::Client::with_uri_str(server.admin_uri()).await;
    let admin = client.unwrap().database("admin");
    admin.run_command(slow).await.unwrap();
    let waits = waits(&queue_of(&here), 3);
    sleep(2 * SECOND).await;
    queue_of(&there).enqueue(&message("a")).await.unwrap();
    let began = tokio::time::Instant::now();
    for wait in join_all(waits).await {
        wait.unwrap().unwrap();
    }
    let took = began.elapsed();
    assert!(took < 7 * SECOND, "{took:?}");
    server.stop().await.unwrap();
}

async fn a_wait_that_is_not_polled_takes_no_time_from_the_operation_timeout() {
    let fixture = Fixture::new().await;
    for timeout in [SECOND / 2, SECOND] {
        let builder = fixture.watched(|_| {}).operation_timeout(timeout);
        let backend = builder.connect().await.unwrap();
        backend.prepare(&name()).await.unwrap();
        let queue = queue_of(&backend);
        let _idle = not_polled(&queue).await;
        queue.enqueue(&message("a")).await.unwrap();
        let waited = soon(queue.wait(60 * MINUTE)).await;
        assert!(waited.is_ok(), "{timeout:?}: {waited:?}");
    }
}

async fn a_wait_that_ends_before_it_may_poll_sends_nothing() {
    let fixture = Fixture::new().await;
    let (counts, queue) = counted(&fixture).await;
    let _idle = not_polled(&queue).await;
    counts.take();
    soon(queue.wait(SECOND / 100)).await.unwrap();
    // Also by the backend's clock.
    let (waited, ()) =
        soon(async { tokio::join!(queue.wait(MINUTE), async { fixture.clock.advance(MINUTE) }) })
            .await;
    waited.unwrap();
    assert_eq!(counts.take(), BTreeMap::new());
}

async fn after_a_wait_that_is_not_polled_one_other_polls_for_all() {
    let fixture = Fixture::new().await;
    let (counts, queue) = counted(&fixture).await;
    queue.enqueue(&message("a")).await.unwrap();
    let idle = not_polled(&queue).await;
    counts.take();
    let waits = join_all((0..WORKERS).map(|_| queue.wait(60 * MINUTE)));
    for waited in soon(waits).await {
        waited.unwrap();
    }
    let sent = counts.take();
    assert!(sent["find"] < ENOUGH, "{sent:?}");
    soon(idle).await.unwrap();
}
