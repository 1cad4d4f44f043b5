//! A server whose commands fail by its own fail points.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mongodb::{
    bson::{Document, doc},
    event::{EventHandler, command::CommandEvent},
};
use mongodb_test_server::{MongoServer, ServerOptions, documentdb::Gate};
use queue_api::{ManualClock, Queue, QueueName};
use queue_docdb::DocDbBackend;

use crate::fixture::{all_engines, builder};

pub(crate) struct FailingServer {
    pub(crate) mongod: MongoServer,
    pub(crate) admin: mongodb::Database,
    pub(crate) gate: Gate,
}

/// A queue with two backends, of which one fails.
pub(crate) struct Case {
    pub(crate) name: QueueName,
    /// This one does not fail.
    pub(crate) healthy: DocDbBackend,
    pub(crate) backend: DocDbBackend,
    /// How often the command that fails was sent.
    pub(crate) sent: Arc<AtomicUsize>,
}

impl Case {
    pub(crate) fn queue(&self, backend: &DocDbBackend) -> Queue {
        Queue::new(Arc::new(backend.clone()), self.name.as_str()).unwrap()
    }
}

impl FailingServer {
    pub(crate) async fn new() -> Self {
        let server = MongoServer::start_dedicated(ServerOptions::new())
            .await
            .unwrap();
        let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
        Self {
            admin: client.database("admin"),
            gate: Gate::new(all_engines()),
            mongod: server,
        }
    }

    /// A case with a database of its own. Its `command` is counted.
    pub(crate) async fn case(
        &self,
        number: usize,
        command: &'static str,
        timeout: Duration,
    ) -> Case {
        let clock = Arc::new(ManualClock::new());
        let database = format!("case{number}");
        let healthy = builder(self.mongod.uri(), &self.gate)
            .database(&database)
            .clock(clock.clone())
            .connect();
        let sent = Arc::new(AtomicUsize::new(0));
        let (count, gate) = (sent.clone(), self.gate.watch());
        let events = EventHandler::callback(move |event: CommandEvent| {
            if let CommandEvent::Started(started) = &event
                && started.command_name == command
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
            if let EventHandler::Callback(judge) = &gate {
                judge(event);
            }
        });
        // After "not primary", the driver waits for its next check of the server.
        let uri = format!(
            "{}&appName=failing&heartbeatFrequencyMS=500",
            self.mongod.uri()
        );
        let backend = DocDbBackend::builder(uri)
            .without_change_stream()
            .database(&database)
            .clock(clock)
            .command_event_handler(events)
            .operation_timeout(timeout)
            .connect();
        Case {
            name: QueueName::new("mail").unwrap(),
            healthy: healthy.await.unwrap(),
            backend: backend.await.unwrap(),
            sent,
        }
    }

    /// The next `command` of the failing backend fails once, in this way.
    pub(crate) async fn fail_once(&self, command: &str, failure: Document) {
        let mut data = doc! { "failCommands": [command], "appName": "failing" };
        data.extend(failure);
        self.fail_point(doc! { "mode": { "times": 1 }, "data": data })
            .await;
    }

    pub(crate) async fn clear(&self) {
        self.fail_point(doc! { "mode": "off" }).await;
    }

    pub(crate) async fn fail_point(&self, how: Document) {
        let mut command = doc! { "configureFailPoint": "failCommand" };
        command.extend(how);
        self.admin.run_command(command).await.unwrap();
    }
}
