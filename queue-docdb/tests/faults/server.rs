//! The server of all cases, and the clients of a case.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::{
    Client,
    options::{ClientOptions, WriteConcern},
};
use mongodb_test_server::{MongoServer, ServerOptions};
use queue_docdb::{DocDbBackend, DocDbBuilder};
use tokio::sync::OnceCell;

use crate::{
    log::{Party, World},
    proxy::Proxy,
    schedule::{CONNECT_TIMEOUT, HEARTBEAT, TIMEOUT},
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
    server: MongoServer,
    undisturbed: Client,
    /// Databases whose queue is empty. To make one and to drop it takes longer than most cases.
    empty: Mutex<Vec<String>>,
}

impl Server {
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Its clients' transactions end soon when they are left open.
    async fn start() -> Self {
        let short = ["--setParameter", "transactionLifetimeLimitSeconds=3"];
        let options = ServerOptions::new().with_arguments(short);
        let server = MongoServer::start_dedicated(options).await;
        let server = server.expect("a MongoDB");
        let uri = format!("{}&retryWrites=false&maxPoolSize=200", server.uri());
        let undisturbed = Client::with_uri_str(uri).await.expect("a client");
        Self {
            server,
            undisturbed,
            empty: Mutex::default(),
        }
    }

    /// A host and a port.
    pub(crate) fn address(&self) -> String {
        let hosts = self.server.uri().trim_start_matches("mongodb://");
        hosts.split('/').next().expect("a host").to_owned()
    }

    /// A database without a queue, or with an empty one.
    pub(crate) fn database(&self, is_new: bool) -> String {
        let empty = match is_new {
            true => None,
            false => self.empty.lock().expect("no panic").pop(),
        };
        empty.unwrap_or_else(|| self.server.fresh_database_name())
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
        proxy: &Proxy,
        kind: ClientKind,
        database: &str,
        world: &Arc<World>,
    ) -> queue_api::Result<Party> {
        Self::subject(proxy.address(), kind, TIMEOUT, database, world).await
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
        party("subject", backend, world).await
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
