//! How to reach a database.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use mongodb::{
    Database,
    event::{EventHandler, command::CommandEvent},
};
use queue_api::{Clock, Error, Result};

use crate::{
    amazon,
    backend::DocDbBackend,
    clock::{ServerClock, Time},
    connect,
    error::{StoreError, during},
    lanes::Lanes,
    names::{Prefix, check_database},
};

/// Says how to reach a database; made by [`DocDbBackend::builder`] or
/// [`DocDbBackend::from_database`].
pub struct DocDbBuilder {
    source: Source,
    database: Option<String>,
    collection_prefix: String,
    operation_timeout: Duration,
    clock: Option<Arc<dyn Clock>>,
    news: WakeMode,
    lanes: usize,
    client: ClientSettings,
}

/// How a wait learns what other processes do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WakeMode {
    /// By a change stream where one can be had, else by looking.
    Streamed,
    /// By looking at intervals.
    Polled,
}

/// Where the connections come from.
enum Source {
    Uri(String),
    /// A client of the application's.
    Database(Database),
}

/// What a client is made with, beside its URI.
#[derive(Default)]
pub(crate) struct ClientSettings {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) application_name: Option<String>,
    pub(crate) max_pool_size: Option<u32>,
    pub(crate) command_events: Option<EventHandler<CommandEvent>>,
}

impl ClientSettings {
    /// The name of a setting that was made, if any was.
    fn first_made(&self) -> Option<&'static str> {
        let Self {
            ca_file,
            application_name,
            max_pool_size,
            command_events,
        } = self;
        [
            (ca_file.is_some(), "CA file"),
            (application_name.is_some(), "application name"),
            (max_pool_size.is_some(), "pool size"),
            (command_events.is_some(), "command event handler"),
        ]
        .into_iter()
        .find_map(|(is_made, name)| is_made.then_some(name))
    }
}

impl DocDbBuilder {
    /// What the collections of queues are called, before the queue's name.
    pub const DEFAULT_COLLECTION_PREFIX: &'static str = "queue.";

    /// How long an operation may take.
    pub const DEFAULT_OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

    pub(crate) fn new(uri: String) -> Self {
        Self::of(Source::Uri(uri))
    }

    pub(crate) fn from_database(database: Database) -> Self {
        Self::of(Source::Database(database))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            database: None,
            collection_prefix: Self::DEFAULT_COLLECTION_PREFIX.to_owned(),
            operation_timeout: Self::DEFAULT_OPERATION_TIMEOUT,
            clock: None,
            news: WakeMode::Streamed,
            lanes: Lanes::MOST.count(),
            client: ClientSettings::default(),
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
        self.client.ca_file = Some(path.into());
        self
    }

    /// What the connections are called in the server's logs and in `currentOp`, at most 128
    /// bytes. The default is what the URI says (`appName`), else `queue-docdb/` and this
    /// crate's version.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.client.application_name = Some(name.into());
        self
    }

    /// How many connections there are at most to each server; the default is what the URI says
    /// (`maxPoolSize`), else 10. Calls beyond that wait for a free one, within their operation
    /// timeout. A small instance of DocumentDB takes 1000 of all its clients together.
    #[must_use]
    pub fn max_pool_size(mut self, connections: u32) -> Self {
        self.client.max_pool_size = Some(connections);
        self
    }

    /// How long a call may take before it is an error, connecting included, and whatever it
    /// consists of: the commands, and trying them again after a failure that passes. 10 seconds
    /// unless set.
    ///
    /// Purging and redriving take this long at most for each thousand messages, and `wait` for
    /// each look at the database.
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

    /// Does without a change stream: waits look at the queue at intervals of up to 2 seconds.
    ///
    /// Without this, the first wait opens one for the database, which stays open while anybody
    /// waits; where the server has none, waits look all the same, and Amazon's elastic clusters are
    /// not asked. It takes a connection of the pool while somebody waits, one of the server's
    /// cursors and, on DocumentDB, I/O for each change that is recorded. In a pool of one
    /// connection there is none.
    #[must_use]
    pub fn without_change_stream(mut self) -> Self {
        self.news = WakeMode::Polled;
        self
    }

    /// Into how many lanes this instance divides a queue when others compete with it for its
    /// messages: 1 to 16, and 16 unless set. With 1 it does not.
    ///
    /// Each of its claims then keeps to one lane, and the next claim to another, so that claims
    /// of different instances rarely meet. A claim so looks at as many index keys for each
    /// message as there are lanes. Whoever is alone takes messages in order of ready time, and
    /// looks at one. Instances with different numbers work together well.
    #[must_use]
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// Tells `handler` of every command that is sent and how it went: for metrics, traces, or
    /// a test that wants to know.
    ///
    /// It is called where the command is sent, so it must not block. Each command is copied
    /// for it, payloads included.
    #[must_use]
    pub fn command_event_handler(mut self, handler: impl Into<EventHandler<CommandEvent>>) -> Self {
        self.client.command_events = Some(handler.into());
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
        let Some(lanes) = Lanes::new(self.lanes) else {
            let message = format!("{} lanes, where 1 to 16 are possible", self.lanes);
            return Err(Error::invalid("connect", message));
        };
        // Each step has a timeout of its own, and explains better what it waited for.
        match tokio::time::timeout(timeout, self.connect_in_steps(lanes)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::TimedOut(timeout).during("connect")),
        }
    }

    async fn connect_in_steps(self, lanes: Lanes) -> Result<DocDbBackend> {
        let timeout = self.operation_timeout;
        let mut news = self.news;
        let database = match self.source {
            Source::Uri(uri) => {
                let options = connect::options(&uri, self.client, timeout).await?;
                // A stream holds a connection while it waits for news, and calls need one.
                let is_alone = options.max_pool_size == Some(1);
                if is_alone || amazon::is_elastic(&options.hosts) {
                    news = WakeMode::Polled;
                }
                let name = self.database.or_else(|| options.default_database.clone());
                let name = name.ok_or_else(|| {
                    Error::invalid(
                        "connect",
                        "neither the URI nor the builder names a database",
                    )
                })?;
                check_database(&name)?;
                // Before anybody is asked, as what is wrong here is wrong everywhere.
                Prefix::new(&name, self.collection_prefix.clone())?;
                connect::client(options, timeout).await?.database(&name)
            }
            Source::Database(given) => {
                let settings = [self.database.map(|_| "database"), self.client.first_made()];
                if let Some(setting) = settings.into_iter().flatten().next() {
                    let message = format!("a {setting}, where the database is handed in with it");
                    return Err(Error::invalid("connect", message));
                }
                connect::given(&given, timeout).await?
            }
        };
        let prefix = Prefix::new(database.name(), self.collection_prefix)?;
        let time = match self.clock {
            Some(clock) => Time::Given(clock),
            None => {
                let admin = database.client().database("admin");
                let clock = ServerClock::measure(admin, timeout).await;
                Time::Server(clock.map_err(during("connect"))?)
            }
        };
        Ok(DocDbBackend::new(
            database, prefix, timeout, time, news, lanes,
        ))
    }
}

impl fmt::Debug for DocDbBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URI may hold a password.
        f.debug_struct("DocDbBuilder")
            .field("database", &self.database)
            .field("collection_prefix", &self.collection_prefix)
            .field("ca_file", &self.client.ca_file)
            .field("operation_timeout", &self.operation_timeout)
            .field("clock", &self.clock)
            .field("news", &self.news)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}
