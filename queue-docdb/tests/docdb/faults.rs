//! A server whose commands fail: by its own fail points, or by a proxy in front of it.

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
use queue_api::{ManualClock, QueueName};
use queue_docdb::DocDbBackend;

use crate::{
    fixture::{all_engines, builder},
    proxy::{Loss, Proxy},
};

/// How a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandFailure {
    Code(i32),
    Unconfirmed,
    ClosedBefore,
    ClosedAfter,
    SlowReply,
    /// The server carries the command out. Then no connection gets an answer for a while.
    Silence,
    /// Not in the table: it needs the command twice.
    ArrivesLate,
}

pub(crate) static FAILURES: [(CommandFailure, &str); 9] = [
    (CommandFailure::Code(112), "write conflict"),
    (CommandFailure::Code(10107), "not primary"),
    (CommandFailure::Code(11600), "shutting down"),
    (CommandFailure::Code(189), "stepped down"),
    (CommandFailure::Unconfirmed, "done, not by a majority"),
    (CommandFailure::ClosedBefore, "closed before"),
    (CommandFailure::ClosedAfter, "done, then closed"),
    (CommandFailure::SlowReply, "done, no answer in time"),
    (CommandFailure::Silence, "done, then silence"),
];

/// A server whose commands fail.
pub(crate) struct FailingServer {
    pub(crate) mongod: MongoServer,
    pub(crate) proxy: Proxy,
    pub(crate) admin: mongodb::Database,
    pub(crate) gate: Gate,
}

/// A queue with two backends, of which one fails.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: QueueName,
    /// This one does not fail.
    pub(crate) healthy: DocDbBackend,
    pub(crate) backend: DocDbBackend,
    /// The clock of both backends.
    pub(crate) clock: Arc<ManualClock>,
    /// How often the command that fails was sent.
    pub(crate) sent: Arc<AtomicUsize>,
}

impl FailingServer {
    pub(crate) async fn new() -> Self {
        let server = MongoServer::start_dedicated(ServerOptions::new())
            .await
            .unwrap();
        let hosts = server.uri().trim_start_matches("mongodb://");
        let address = hosts.split('/').next().unwrap().to_owned();
        let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
        Self {
            proxy: Proxy::start(address).await,
            admin: client.database("admin"),
            gate: Gate::new(all_engines()),
            mongod: server,
        }
    }

    pub(crate) async fn case(
        &self,
        number: usize,
        command: &'static str,
        failure: CommandFailure,
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
        let backend = DocDbBackend::builder(self.uri(failure))
            .without_change_stream()
            .database(&database)
            .clock(clock.clone())
            .command_event_handler(events)
            .operation_timeout(Duration::from_millis(match failure {
                CommandFailure::SlowReply => 4500,
                _ => 30_000,
            }))
            .connect();
        Case {
            name: QueueName::new("mail").unwrap(),
            healthy: healthy.await.unwrap(),
            backend: backend.await.unwrap(),
            clock,
            sent,
        }
    }

    /// The URI of the proxy.
    ///
    /// After "not primary", the driver waits for its next check of the server. Under silence, a
    /// check fails after the connect timeout, and then the driver gives up its connections.
    pub(crate) fn uri(&self, failure: CommandFailure) -> String {
        let connect_timeout = match failure {
            CommandFailure::Silence => "&connectTimeoutMS=1500",
            _ => "",
        };
        format!(
            "mongodb://{}/?directConnection=true&appName=failing&heartbeatFrequencyMS=500\
             {connect_timeout}",
            self.proxy.address()
        )
    }

    pub(crate) async fn arm(&self, command: &str, failure: CommandFailure) {
        let what = match failure {
            CommandFailure::Code(code) => doc! { "errorCode": code },
            CommandFailure::Unconfirmed => {
                doc! { "writeConcernError": { "code": 64, "errmsg": "timed out" } }
            }
            CommandFailure::ClosedBefore => doc! { "closeConnection": true },
            CommandFailure::ClosedAfter => return self.proxy.set(command, Loss::Close),
            CommandFailure::SlowReply => return self.proxy.set(command, Loss::Withhold),
            CommandFailure::Silence => return self.proxy.set(command, Loss::Silence),
            CommandFailure::ArrivesLate => return self.proxy.set(command, Loss::ArriveLate),
        };
        let mut data = doc! { "failCommands": [command], "appName": "failing" };
        data.extend(what);
        self.fail_point(doc! { "mode": { "times": 1 }, "data": data })
            .await;
    }

    pub(crate) async fn clear(&self) {
        self.proxy.clear();
        self.fail_point(doc! { "mode": "off" }).await;
    }

    pub(crate) async fn fail_point(&self, how: Document) {
        let mut command = doc! { "configureFailPoint": "failCommand" };
        command.extend(how);
        self.admin.run_command(command).await.unwrap();
    }
}
