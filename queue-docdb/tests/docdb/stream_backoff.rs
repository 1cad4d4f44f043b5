//! Change streams that open and cannot be read.

use std::time::Duration;

use futures::future::join_all;
use mongodb::{
    bson::{Document, doc},
    event::{EventHandler, command::CommandEvent},
};
use queue_docdb::DocDbBackend;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    failing_server::FailingServer,
    fixture::{MINUTE, message, queue_of},
};

tests! {
    on_threads:
        a_stream_that_cannot_be_read_is_opened_less_and_less_often,
        waits_long_apart_share_a_back_off
}

/// A pause that only a back-off of several failures makes. Without one, a stream is opened about
/// once a second.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// More than a back-off needs to reach the long pause, also if the driver opens the stream twice for
/// each failure.
const MANY: usize = 20;

/// A backend whose change stream cannot be read.
struct Unreadable {
    server: FailingServer,
    backend: DocDbBackend,
    /// When it opened a stream.
    opened: UnboundedReceiver<Instant>,
}

impl Unreadable {
    async fn new() -> Self {
        let server = FailingServer::new().await;
        let (open, opened) = mpsc::unbounded_channel();
        let events = EventHandler::callback(move |event| {
            if let CommandEvent::Started(started) = event
                && started.command_name == "aggregate"
            {
                let _ = open.send(Instant::now());
            }
        });
        let backend = DocDbBackend::builder(format!("{}&appName=failing", server.mongod.uri()))
            .database("shop")
            .command_event_handler(events)
            .connect();
        Self {
            backend: backend.await.unwrap(),
            server,
            opened,
        }
    }

    /// Each attempt to read a stream fails in this way from now on.
    async fn fail(&self, how: Document) {
        let mut data = doc! { "failCommands": ["getMore"], "appName": "failing" };
        data.extend(how);
        let fail_point = doc! { "mode": "alwaysOn", "data": data };
        self.server.fail_point(fail_point).await;
    }

    fn wait(&self) -> JoinHandle<queue_api::Result<()>> {
        let queue = queue_of(&self.backend);
        tokio::spawn(async move { queue.wait(60 * MINUTE).await })
    }

    /// The pause before the next opening of a stream but one.
    async fn next_pause(&mut self) -> Duration {
        let first = self.opened.recv().await.unwrap();
        self.opened.recv().await.unwrap() - first
    }

    /// Returns after a long pause between two openings, or after many without one.
    async fn back_off(&mut self, how: &Document) -> Result<(), String> {
        let mut last = self.opened.recv().await.unwrap();
        let mut pauses = Vec::new();
        while pauses.last().is_none_or(|pause| *pause < LONG_PAUSE) {
            if pauses.len() == MANY {
                return Err(format!("{how}: no back-off: {pauses:.1?}"));
            }
            let next = self.opened.recv().await.unwrap();
            pauses.push(next - last);
            last = next;
        }
        Ok(())
    }
}

/// The driver opens a stream anew by itself after some of these errors.
async fn a_stream_that_cannot_be_read_is_opened_less_and_less_often() {
    let failures = [
        doc! { "errorCode": 13 },
        doc! { "errorCode": 43 },
        doc! { "errorCode": 11_601, "errorLabels": ["ResumableChangeStreamError"] },
        doc! { "closeConnection": true },
    ];
    let backed_off = failures.map(async |how| {
        let mut unreadable = Unreadable::new().await;
        unreadable.fail(how.clone()).await;
        let wait = unreadable.wait();
        let backed_off = unreadable.back_off(&how).await;
        // The wait polls meanwhile. A closed connection of the stream may take down that of an
        // enqueue, which can be repeated.
        let queue = queue_of(&unreadable.backend);
        while let Err(error) = queue.enqueue(&message("a")).await {
            assert!(error.is_retryable(), "{how}: {error}");
        }
        wait.await.unwrap().unwrap();
        unreadable.server.mongod.stop().await.unwrap();
        backed_off.err()
    });
    let failed: Vec<String> = join_all(backed_off).await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Sleeps because the task that reads the stream ends some time after the last wait.
#[allow(clippy::disallowed_methods)]
async fn waits_long_apart_share_a_back_off() {
    let mut unreadable = Unreadable::new().await;
    let how = doc! { "errorCode": 13 };
    unreadable.fail(how.clone()).await;
    let wait = unreadable.wait();
    unreadable.back_off(&how).await.unwrap();
    wait.abort();
    tokio::time::sleep(Duration::from_secs(30)).await;
    while unreadable.opened.try_recv().is_ok() {}
    let wait = unreadable.wait();
    let pause = unreadable.next_pause().await;
    assert!(pause >= LONG_PAUSE, "{pause:?}");
    wait.abort();
    unreadable.server.mongod.stop().await.unwrap();
}
