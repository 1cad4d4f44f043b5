//! Where the queues are, and the one place in which a backend is built.

use std::sync::Arc;

use mongodb::{
    Client, Database,
    event::{EventHandler, command::CommandEvent},
    options::{ClientOptions, WriteConcern},
};
use queue_api::{Batching, Queue};
use queue_docdb::DocDbBackend;
use serde::{Deserialize, Serialize};

/// A database on a server, as child processes are told it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    uri: String,
    database: String,
    pub(super) news: WakeMode,
}

/// How a consumer learns of what other processes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WakeMode {
    Streamed,
    Polled,
}

/// The queue of a section.
pub(super) const QUEUE: &str = "bench";

/// How many connections the baselines have: with one for each of 256 callers they get in each
/// other's way and are slower, and so is `insert_one` with the ten that the driver would open.
const BASELINE_CONNECTIONS: u32 = 32;

impl Place {
    pub(super) fn new(uri: &str, database: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            database: database.to_owned(),
            news: WakeMode::Streamed,
        }
    }

    pub(super) fn with_news(&self, news: WakeMode) -> Self {
        Self {
            news,
            ..self.clone()
        }
    }

    pub(super) async fn backend(&self) -> anyhow::Result<Arc<DocDbBackend>> {
        self.connect(None).await
    }

    /// The same, and `handler` is told of every command.
    pub(super) async fn observed(
        &self,
        handler: EventHandler<CommandEvent>,
    ) -> anyhow::Result<Arc<DocDbBackend>> {
        self.connect(Some(handler)).await
    }

    /// Every backend that is measured, here and in child processes, is built by this.
    async fn connect(
        &self,
        handler: Option<EventHandler<CommandEvent>>,
    ) -> anyhow::Result<Arc<DocDbBackend>> {
        let mut builder = DocDbBackend::builder(&self.uri).database(&self.database);
        if let Some(handler) = handler {
            builder = builder.command_event_handler(handler);
        }
        if self.news == WakeMode::Polled {
            builder = builder.without_change_stream();
        }
        Ok(Arc::new(builder.connect().await?))
    }

    /// The database for what is sent past any backend, over connections of its own.
    pub(super) async fn database(&self) -> anyhow::Result<Database> {
        let mut options = ClientOptions::parse(&self.uri).await?;
        options.max_pool_size = Some(BASELINE_CONNECTIONS);
        // As DocumentDB wants it; it is the cheaper way, too.
        options.retry_writes = Some(false);
        options.write_concern = Some(WriteConcern::majority());
        Ok(Client::with_options(options)?.database(&self.database))
    }
}

/// A queue whose concurrent calls share round trips.
pub(super) fn shared(backend: &Arc<DocDbBackend>) -> anyhow::Result<Queue> {
    let batching = Batching::new(backend.clone());
    Ok(Queue::new(Arc::new(batching), QUEUE)?)
}
