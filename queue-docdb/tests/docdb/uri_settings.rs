//! What the README promises about settings in the URI.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::{
    bson::doc,
    event::{EventHandler, command::CommandEvent},
};
use mongodb_test_server::MongoServer;
use queue_api::{NewMessage, QueueAdmin};
use queue_docdb::{DocDbBackend, DocDbBuilder};

use crate::fixture::{applied, name, queue_of};

tests! {
    on_one_thread:
        overridden_settings_have_no_effect,
        an_idle_connection_is_kept_unless_the_uri_says_otherwise,
        the_application_name_is_the_builders_or_the_uris_or_the_crates
}

/// What the commands of a backend say about reads, writes and connections.
#[derive(Clone, Default)]
struct Commands {
    concerns: Arc<Mutex<BTreeSet<String>>>,
    connections: Arc<Mutex<BTreeSet<u32>>>,
}

impl Commands {
    fn note(&self, event: CommandEvent) {
        let CommandEvent::Started(started) = event else {
            return;
        };
        self.connections
            .lock()
            .unwrap()
            .insert(started.connection.id);
        let fields = [
            "readConcern",
            "writeConcern",
            "$readPreference",
            "txnNumber",
        ];
        let concerns = fields.map(|field| match started.command.get(field) {
            Some(value) => format!("{field}: {value}"),
            None => String::new(),
        });
        let said = format!("{} {}", started.command_name, concerns.join(" "));
        self.concerns.lock().unwrap().insert(said);
    }

    fn watch(&self) -> EventHandler<CommandEvent> {
        let commands = self.clone();
        EventHandler::callback(move |event| commands.note(event))
    }
}

fn builder(server: &MongoServer, settings: &str) -> DocDbBuilder {
    let mark = if settings.is_empty() { "" } else { "&" };
    DocDbBackend::builder(format!("{}{mark}{settings}", server.uri())).without_change_stream()
}

/// The commands of one message's life.
async fn commands_with(server: &MongoServer, settings: &str) -> BTreeSet<String> {
    let (database, commands) = (server.scratch_database(), Commands::default());
    let builder = builder(server, settings)
        .database(database.name())
        .command_event_handler(commands.watch());
    let backend = builder
        .connect()
        .await
        .unwrap_or_else(|error| panic!("{settings}: {error}"));
    let queue = queue_of(&backend);
    queue.enqueue(&NewMessage::new("a")).await.unwrap();
    let delivery = queue.lease().await.unwrap().expect("ready");
    applied(queue.extend(&delivery.receipt, Duration::from_secs(9))).await;
    applied(queue.ack(&delivery.receipt)).await;
    queue.stats().await.unwrap();
    let concerns = commands.concerns.lock().unwrap();
    concerns.clone()
}

/// Every setting that has no effect.
async fn overridden_settings_have_no_effect() {
    let server = MongoServer::shared().await.unwrap();
    let plain = commands_with(server, "").await;
    for write in ["insert", "update", "delete"] {
        let majority =
            |said: &&String| said.starts_with(write) && said.contains(r#"{ "w": "majority" }"#);
        assert!(plain.iter().any(|said| majority(&said)), "{plain:?}");
    }
    for settings in [
        "retryWrites=true",
        "retryReads=true",
        "readPreference=primary",
        "readPreference=secondaryPreferred",
        "readPreference=nearest&readPreferenceTags=dc:ny&maxStalenessSeconds=120",
        "readConcernLevel=local",
        "readConcernLevel=majority",
        "readConcernLevel=available",
        "readConcernLevel=snapshot",
        "readConcernLevel=linearizable",
        "w=0",
        "w=1",
        "w=majority&wTimeoutMS=100",
        "journal=false",
        "serverSelectionTimeoutMS=100",
    ] {
        assert_eq!(commands_with(server, settings).await, plain, "{settings}");
    }
}

async fn an_idle_connection_is_kept_unless_the_uri_says_otherwise() {
    let server = MongoServer::shared().await.unwrap();
    for (settings, connections) in [("", 1), ("maxIdleTimeMS=0", 1), ("maxIdleTimeMS=1", 2)] {
        let commands = Commands::default();
        let builder = builder(server, settings)
            .database("shop")
            .command_event_handler(commands.watch());
        let backend = builder.connect().await.unwrap();
        commands.connections.lock().unwrap().clear();
        for _ in 0..2 {
            idle().await;
            backend.peek(&name(), 1).await.unwrap();
        }
        let used = commands.connections.lock().unwrap().len();
        match connections {
            1 => assert_eq!(used, 1, "{settings}"),
            least => assert!(used >= least, "{settings}"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "connections are idle in real time"
)]
async fn idle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn the_application_name_is_the_builders_or_the_uris_or_the_crates() {
    let server = MongoServer::shared().await.unwrap();
    let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
    let default = concat!("queue-docdb/", env!("CARGO_PKG_VERSION"));
    for (settings, own, expected) in [
        ("", None, default),
        ("appName=shop-app", None, "shop-app"),
        ("appName=shop-app", Some("mail-app"), "mail-app"),
    ] {
        let mut builder = builder(server, settings).database("shop");
        if let Some(own) = own {
            builder = builder.application_name(own);
        }
        let _backend = builder.connect().await.unwrap();
        let connections = doc! { "$currentOp": { "allUsers": true, "idleConnections": true } };
        let named = doc! { "$match": { "appName": expected } };
        let admin = client.database("admin");
        let mut found = admin.aggregate([connections, named]).await.unwrap();
        assert!(found.advance().await.unwrap(), "{settings} {own:?}");
    }
}
