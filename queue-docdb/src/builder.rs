//! How to reach a database.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use mongodb::event::{EventHandler, command::CommandEvent};
use queue_api::{Clock, Error, Result};

use crate::{
    backend::DocDbBackend,
    clock::{ServerClock, Time},
    connect,
    error::{StoreError, during},
    names::{Prefix, check_database},
};

/// Says how to reach a database; made by [`DocDbBackend::builder`].
pub struct DocDbBuilder {
    uri: String,
    database: Option<String>,
    collection_prefix: String,
    ca_file: Option<PathBuf>,
    operation_timeout: Duration,
    clock: Option<Arc<dyn Clock>>,
    command_events: Option<EventHandler<CommandEvent>>,
}

impl DocDbBuilder {
    /// What the collections of queues are called, before the queue's name.
    pub const DEFAULT_COLLECTION_PREFIX: &'static str = "queue.";

    /// How long an operation may take.
    pub const DEFAULT_OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

    pub(crate) fn new(uri: String) -> Self {
        Self {
            uri,
            database: None,
            collection_prefix: Self::DEFAULT_COLLECTION_PREFIX.to_owned(),
            ca_file: None,
            operation_timeout: Self::DEFAULT_OPERATION_TIMEOUT,
            clock: None,
            command_events: None,
        }
    }

    /// The database that holds the queues; needed unless the URI names one.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = Some(name.into());
        self
    }

    /// What collection names begin with: a queue is the collection prefix + queue name. The
    /// default is [`DEFAULT_COLLECTION_PREFIX`](Self::DEFAULT_COLLECTION_PREFIX).
    ///
    /// It may be empty, for a database that holds nothing but queues, and has at most 9
    /// bytes: DocumentDB allows 57 for a collection name, and a queue's takes up to 48.
    #[must_use]
    pub fn collection_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.collection_prefix = prefix.into();
        self
    }

    /// The PEM file of the certificates that the server's is signed by; it turns TLS on. For
    /// DocumentDB it is the
    /// [bundle of AWS](https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem).
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// How long an operation may take before it is an error, connecting included; 10 seconds
    /// unless set. A call of the queue may consist of a few operations.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// The clock that all times are taken from. The default is the server's time, which all
    /// processes that use the queue share; another clock is for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Tells `handler` of every command that is sent and how it went: for metrics, traces, or
    /// a test that wants to know.
    ///
    /// It is called where the command is sent, so it must not block. Each command is copied
    /// for it, payloads included.
    #[must_use]
    pub fn command_event_handler(mut self, handler: impl Into<EventHandler<CommandEvent>>) -> Self {
        self.command_events = Some(handler.into());
        self
    }

    /// Connects, and makes sure that the database answers and takes the credentials.
    ///
    /// # Errors
    /// - [`InvalidInput`](queue_api::ErrorKind::InvalidInput): the URI, a name, the timeout or
    ///   the CA file is not usable, or the server's certificate is not signed by it.
    /// - [`Denied`](queue_api::ErrorKind::Denied): the server refuses the credentials.
    /// - [`Unavailable`](queue_api::ErrorKind::Unavailable) or
    ///   [`TimedOut`](queue_api::ErrorKind::TimedOut): nobody answered within the operation
    ///   timeout.
    ///
    /// What the user may do is not tried: without the right to write, the first write is
    /// `Denied`.
    pub async fn connect(self) -> Result<DocDbBackend> {
        let timeout = self.operation_timeout;
        if timeout.is_zero() {
            return Err(Error::invalid("connect", "an operation timeout of nothing"));
        }
        // Each step has a timeout of its own, and explains better what it waited for.
        match tokio::time::timeout(timeout, self.connect_in_steps()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::TimedOut(timeout).during("connect")),
        }
    }

    async fn connect_in_steps(self) -> Result<DocDbBackend> {
        let timeout = self.operation_timeout;
        let mut options = connect::options(&self.uri, self.ca_file.as_deref(), timeout).await?;
        options.command_event_handler = self.command_events;
        let database = self
            .database
            .or_else(|| options.default_database.clone())
            .ok_or_else(|| {
                Error::invalid(
                    "connect",
                    "neither the URI nor the builder names a database",
                )
            })?;
        check_database(&database)?;
        let prefix = Prefix::new(&database, self.collection_prefix)?;
        let client = connect::client(options, timeout).await?;
        let time = match self.clock {
            Some(clock) => Time::Given(clock),
            None => {
                let clock = ServerClock::measure(client.database("admin"), timeout).await;
                Time::Server(clock.map_err(during("connect"))?)
            }
        };
        Ok(DocDbBackend::new(
            client.database(&database),
            prefix,
            timeout,
            time,
        ))
    }
}

impl fmt::Debug for DocDbBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URI may hold a password.
        f.debug_struct("DocDbBuilder")
            .field("database", &self.database)
            .field("collection_prefix", &self.collection_prefix)
            .field("ca_file", &self.ca_file)
            .field("operation_timeout", &self.operation_timeout)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}
