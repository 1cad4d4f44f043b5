//! Where the queues of a section are, and how backends are built.

use std::sync::Arc;

use anyhow::Result;
use mongodb::{
    Client, Database,
    event::{EventHandler, command::CommandEvent},
    options::{ClientOptions, WriteConcern},
};
use queue_docdb::{DocDbBackend, DocDbBuilder};
use serde::{Deserialize, Serialize};

/// The queue of a section.
pub(super) const QUEUE: &str = "bench";

/// The baselines are fastest with this many connections, of 10 to 256.
const BASELINE_CONNECTIONS: u32 = 32;

/// A database. Child processes get this as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Location {
    pub(super) uri: String,
    pub(super) database: String,
    pub(super) wake_mode: WakeMode,
}

/// How a consumer learns that another process has enqueued a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WakeMode {
    ChangeStream,
    Polling,
}

impl Location {
    pub(super) async fn backend(&self) -> Result<Arc<DocDbBackend>> {
        self.connect(|builder| builder).await
    }

    /// A backend that puts so many messages into a document.
    pub(super) async fn backend_with_entries_of(
        &self,
        messages: usize,
    ) -> Result<Arc<DocDbBackend>> {
        self.connect(|builder| builder.entry_size(messages)).await
    }

    /// A backend whose commands `handler` sees.
    pub(super) async fn backend_with_events(
        &self,
        handler: impl Fn(CommandEvent) + Send + Sync + 'static,
    ) -> Result<Arc<DocDbBackend>> {
        let handler = EventHandler::callback(handler);
        self.connect(|builder| builder.command_event_handler(handler))
            .await
    }

    async fn connect(
        &self,
        with: impl FnOnce(DocDbBuilder) -> DocDbBuilder,
    ) -> Result<Arc<DocDbBackend>> {
        let mut builder = with(DocDbBackend::builder(&self.uri).database(&self.database));
        if self.wake_mode == WakeMode::Polling {
            builder = builder.without_change_stream();
        }
        Ok(Arc::new(builder.connect().await?))
    }

    /// The database for the baselines, over connections of their own.
    pub(super) async fn database(&self) -> Result<Database> {
        let mut options = ClientOptions::parse(&self.uri).await?;
        options.max_pool_size = Some(BASELINE_CONNECTIONS);
        // As the backend does, because DocumentDB has no retryable writes.
        options.retry_writes = Some(false);
        options.write_concern = Some(WriteConcern::majority());
        Ok(Client::with_options(options)?.database(&self.database))
    }
}
