//! A server whose commands fail, by its own fail points or by a proxy in front of it.

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
use mongodb_test_server::{
    MongoServer, ServerOptions,
    documentdb::{Engines, Gate},
};
use queue_api::{ManualClock, QueueName};
use queue_docdb::DocDbBackend;

use crate::{
    fixture::builder,
    proxy::{Loss, Proxy},
};

/// How a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Code(i32),
    Unconfirmed,
    ClosedBefore,
    ClosedAfter,
    SlowReply,
    /// The command arrives, and then all connections are silent for a while.
    Silence,
    /// Not in the table: it takes two of the command.
    ArrivesLate,
}

pub(crate) static FAULTS: [(Fault, &str); 9] = [
    (Fault::Code(112), "write conflict"),
    (Fault::Code(10107), "not primary"),
    (Fault::Code(11600), "shutting down"),
    (Fault::Code(189), "stepped down"),
    (Fault::Unconfirmed, "done, not by a majority"),
    (Fault::ClosedBefore, "closed before"),
    (Fault::ClosedAfter, "done, then closed"),
    (Fault::SlowReply, "done, no answer in time"),
    (Fault::Silence, "done, then silence"),
];

/// A server whose commands fail.
pub(crate) struct Bench {
    pub(crate) server: MongoServer,
    pub(crate) proxy: Proxy,
    admin: mongodb::Database,
    pub(crate) gate: Gate,
}

/// One case: a queue, seen by a backend that nothing happens to and by one that suffers.
pub(crate) struct Patient {
    pub(crate) name: QueueName,
    pub(crate) healthy: DocDbBackend,
    pub(crate) backend: DocDbBackend,
    /// The time of both.
    pub(crate) clock: Arc<ManualClock>,
    /// How often the command that fails was sent.
    pub(crate) sent: Arc<AtomicUsize>,
}

impl Bench {
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
            gate: Gate::new(Engines::ALL),
            server,
        }
    }

    pub(crate) async fn patient(
        &self,
        number: usize,
        command: &'static str,
        fault: Fault,
    ) -> Patient {
        let clock = Arc::new(ManualClock::new());
        let database = format!("case{number}");
        let healthy = builder(self.server.uri(), &self.gate)
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
        let backend = DocDbBackend::builder(self.uri())
            .without_change_stream()
            .database(&database)
            .clock(clock.clone())
            .command_event_handler(events)
            .operation_timeout(Duration::from_millis(match fault {
                Fault::SlowReply => 1500,
                _ => 10_000,
            }))
            .connect();
        Patient {
            name: QueueName::new("mail").unwrap(),
            healthy: healthy.await.unwrap(),
            backend: backend.await.unwrap(),
            clock,
            sent,
        }
    }

    /// How to connect through the proxy.
    ///
    /// A server that says it is not primary, and is, does not announce the next primary. So the
    /// driver is told to look again as often as it can. It takes the sum of the two times for it
    /// to find that nobody answers.
    pub(crate) fn uri(&self) -> String {
        format!(
            "mongodb://{}/?directConnection=true&appName=patient&heartbeatFrequencyMS=500\
             &connectTimeoutMS=1500",
            self.proxy.address()
        )
    }

    pub(crate) async fn arm(&self, command: &str, fault: Fault) {
        let what = match fault {
            Fault::Code(code) => doc! { "errorCode": code },
            Fault::Unconfirmed => {
                doc! { "writeConcernError": { "code": 64, "errmsg": "timed out" } }
            }
            Fault::ClosedBefore => doc! { "closeConnection": true },
            Fault::ClosedAfter => return self.proxy.set(command, Loss::Close),
            Fault::SlowReply => return self.proxy.set(command, Loss::Withhold),
            Fault::Silence => return self.proxy.set(command, Loss::Silence),
            Fault::ArrivesLate => return self.proxy.set(command, Loss::ArriveLate),
        };
        let mut data = doc! { "failCommands": [command], "appName": "patient" };
        data.extend(what);
        self.fail_point(doc! { "mode": { "times": 1 }, "data": data })
            .await;
    }

    pub(crate) async fn heal(&self) {
        self.proxy.heal();
        self.fail_point(doc! { "mode": "off" }).await;
    }

    pub(crate) async fn fail_point(&self, how: Document) {
        let mut command = doc! { "configureFailPoint": "failCommand" };
        command.extend(how);
        self.admin.run_command(command).await.unwrap();
    }
}
