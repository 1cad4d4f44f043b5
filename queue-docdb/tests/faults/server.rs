//! The server of all cases, and the clients of a case.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::{
    Client,
    bson::{Uuid, doc},
    options::{ClientOptions, WriteConcern},
};
use mongodb_test_server::{MongoServer, ServerOptions};
use queue_docdb::{DocDbBackend, DocDbBuilder};
use tokio::sync::{OnceCell, watch};

use crate::{
    failover::Set,
    log::{Party, World},
    proxy::Proxy,
    record::SUBJECT,
    schedule::{CONNECT_TIMEOUT, HEARTBEAT, LONG_TIMEOUT, TIMEOUT},
};

/// How the backend got its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ClientKind {
    /// Made by the backend.
    Own,
    /// The application's, with retries by the driver and a write concern of one.
    HandedIn,
}

pub(crate) const CLIENTS: [(ClientKind, &str); 2] = [
    (ClientKind::Own, "own"),
    (ClientKind::HandedIn, "handed_in"),
];

pub(crate) struct Server {
    deployment: Deployment,
    undisturbed: Client,
    /// The operation timeout of the clients under test.
    pub(crate) timeout: Duration,
    /// Databases whose queue is empty. To make one and to drop it takes longer than most cases.
    empty: Mutex<Vec<String>>,
}

enum Deployment {
    One {
        /// Its data go with it.
        _server: MongoServer,
        address: watch::Sender<String>,
    },
    Set(Set),
}

impl Server {
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let settings = [
            // Its clients leave transactions open.
            "transactionLifetimeLimitSeconds=3",
            // Otherwise it keeps the files of dropped databases for five minutes, which are more than a
            // process may open.
            "minSnapshotHistoryWindowInSeconds=0",
        ];
        let arguments = settings.into_iter().flat_map(|it| ["--setParameter", it]);
        let options = ServerOptions::new().with_arguments(arguments);
        let server = MongoServer::start_dedicated(options).await;
        let server = server.expect("a MongoDB");
        let hosts = server.uri().trim_start_matches("mongodb://");
        let address = hosts.split('/').next().expect("a host").to_owned();
        let uri = server.uri().to_owned();
        let deployment = Deployment::One {
            _server: server,
            address: watch::Sender::new(address),
        };
        Self::of(deployment, &uri, TIMEOUT).await
    }

    /// A replica set whose primary changes.
    pub(crate) async fn replica_set() -> &'static Self {
        static SET: OnceCell<Server> = OnceCell::const_new();
        let start = async || {
            let set = Set::start().await.expect("a replica set");
            let uri = set.uri();
            Self::of(Deployment::Set(set), &uri, LONG_TIMEOUT).await
        };
        SET.get_or_init(start).await
    }

    async fn of(deployment: Deployment, uri: &str, timeout: Duration) -> Self {
        let uri = format!("{uri}&retryWrites=false&maxPoolSize=200");
        Self {
            deployment,
            undisturbed: Client::with_uri_str(uri).await.expect("a client"),
            timeout,
            empty: Mutex::default(),
        }
    }

    /// Whether it is still there.
    pub(crate) async fn answers(&self) -> bool {
        let admin = self.undisturbed.database("admin");
        let ping = admin.run_command(doc! { "ping": 1 });
        let answer = tokio::time::timeout(LONG_TIMEOUT, ping.into_future()).await;
        answer.is_ok_and(|answer| answer.is_ok())
    }

    /// The host and the port of the primary.
    pub(crate) fn primary(&self) -> watch::Receiver<String> {
        match &self.deployment {
            Deployment::One { address, .. } => address.subscribe(),
            Deployment::Set(set) => set.primary(),
        }
    }

    pub(crate) fn set(&self) -> Option<&Set> {
        match &self.deployment {
            Deployment::One { .. } => None,
            Deployment::Set(set) => Some(set),
        }
    }

    /// A database without a queue, or with an empty one.
    pub(crate) fn database(&self, is_new: bool) -> String {
        let empty = match is_new {
            true => None,
            false => self.empty.lock().expect("no panic").pop(),
        };
        // The prefix of databases of tests.
        empty.unwrap_or_else(|| format!("test_{}", Uuid::new().to_string().replace('-', "")))
    }

    /// Takes back a database whose queue is empty.
    pub(crate) fn give_back(&self, database: String) {
        self.empty.lock().expect("no panic").push(database);
    }

    pub(crate) async fn drop_database(&self, name: &str) {
        // It does not outlast the server.
        let _ = self.undisturbed.database(name).drop().await;
    }

    /// A process whose connections nothing disturbs.
    pub(crate) async fn undisturbed(
        &self,
        name: &'static str,
        database: &str,
        world: &Arc<World>,
    ) -> queue_api::Result<Party> {
        let database = self.undisturbed.database(database);
        let backend = DocDbBackend::from_database(database).clock(world.clock.clone());
        party(name, backend, world).await
    }

    /// The process whose connections go through a proxy.
    pub(crate) async fn behind(
        &self,
        proxy: &Proxy,
        kind: ClientKind,
        database: &str,
        world: &Arc<World>,
    ) -> queue_api::Result<Party> {
        Self::subject(proxy.address(), kind, self.timeout, database, world).await
    }

    /// The same, in any process.
    pub(crate) async fn subject(
        address: &str,
        kind: ClientKind,
        timeout: Duration,
        database: &str,
        world: &Arc<World>,
    ) -> queue_api::Result<Party> {
        let uri = format!(
            "mongodb://{address}/?directConnection=true&heartbeatFrequencyMS={}&connectTimeoutMS={}",
            HEARTBEAT.as_millis(),
            CONNECT_TIMEOUT.as_millis()
        );
        let backend = match kind {
            ClientKind::Own => DocDbBackend::builder(uri)
                .database(database)
                .without_change_stream(),
            ClientKind::HandedIn => {
                let options = ClientOptions::parse(&uri).await;
                let mut options = options.expect("a valid URI");
                options.retry_writes = Some(true);
                options.retry_reads = Some(true);
                options.write_concern = Some(WriteConcern::nodes(1));
                options.server_selection_timeout = Some(timeout / 2);
                let client = Client::with_options(options).expect("valid options");
                DocDbBackend::from_database(client.database(database))
            }
        };
        let backend = backend
            .operation_timeout(timeout)
            .clock(world.clock.clone());
        party(SUBJECT, backend, world).await
    }
}

async fn party(
    name: &'static str,
    backend: DocDbBuilder,
    world: &Arc<World>,
) -> queue_api::Result<Party> {
    Ok(Party {
        name,
        backend: backend.connect().await?,
        world: world.clone(),
    })
}
