//! The builder: how to reach a database, and how the backend uses it.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use mongodb::{
    Database,
    event::{EventHandler, command::CommandEvent},
};
use queue_api::{Clock, Result};

use crate::{
    backend::{Direct, DocDbBackend},
    connect::{
        self, ClientSettings,
        amazon::{self, Engine},
        operation::{OPERATION, invalid},
        runtime::ConnectRuntime,
    },
    names::{Prefix, check_database},
    state::queues::Queues,
    store::{
        clock::{ServerClock, Time},
        error::during,
        retry::{self, Deadline},
    },
    watch::Watch,
};

/// Measured with 16 consumers that lease one message each: entries of 32 cost them a quarter, those
/// of 16 nothing.
const ENTRY_SIZE: usize = 16;

const LARGEST_ENTRY: usize = 64;

/// A pool of one connection has none to spare for a change stream.
const TOO_SMALL_FOR_STREAMS: u32 = 1;

/// Settings of a [`DocDbBackend`], made by [`DocDbBackend::builder`] or
/// [`DocDbBackend::from_database`].
///
/// ```
/// use queue_docdb::DocDbBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let builder = DocDbBackend::builder("mongodb://localhost:27017")
///     .database("shop")
///     .max_pool_size(0);
/// let error = builder.connect().await.unwrap_err();
/// assert_eq!(error.to_string(), "connect: max_pool_size is 0; it must be at least 1");
/// # }
/// ```
#[derive(Debug)]
pub struct DocDbBuilder {
    source: Source,
    database: Option<String>,
    collection_prefix: String,
    operation_timeout: Duration,
    clock: Option<Arc<dyn Clock>>,
    /// Whether waits use a change stream where the server has one. If not, they poll.
    has_change_stream: bool,
    entry_size: usize,
    client: ClientSettings,
}

/// Where the connections come from.
enum Source {
    Uri(String),
    /// The application's own client.
    Database(Database),
}

impl DocDbBackend {
    /// Starts a builder for a `mongodb://` or `mongodb+srv://` URI.
    pub fn builder(uri: impl Into<String>) -> DocDbBuilder {
        DocDbBuilder::new(Source::Uri(uri.into()))
    }

    /// Starts a builder for a database of the application's own client. Its connections,
    /// credentials and TLS are used as they are.
    ///
    /// The backend reads from the primary and writes to a majority, whatever the client says. It
    /// cannot override `retryWrites`: on DocumentDB before 8.0.2 the client must have
    /// `retryWrites=false`.
    ///
    /// Set its `maxIdleTimeMS` below the time after which your load balancers and NAT gateways
    /// forget a connection.
    ///
    /// Set `serverSelectionTimeoutMS` below the operation timeout, so that `connect` can name the
    /// reason.
    ///
    /// Waits poll, because the pool may be too small for change streams: several backends may
    /// share it, and its size is unknown. See [`with_change_stream`](DocDbBuilder::with_change_stream).
    ///
    /// ```no_run
    /// use queue_docdb::{DocDbBackend, mongodb::Client};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::with_uri_str("mongodb://localhost:27017").await?;
    /// let backend = DocDbBackend::from_database(client.database("shop"))
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_database(database: Database) -> DocDbBuilder {
        DocDbBuilder::new(Source::Database(database))
    }
}

impl DocDbBuilder {
    /// The default of [`collection_prefix`](Self::collection_prefix).
    pub const DEFAULT_COLLECTION_PREFIX: &'static str = "queue.";

    /// The default of [`operation_timeout`](Self::operation_timeout).
    pub const DEFAULT_OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

    fn new(source: Source) -> Self {
        Self {
            // A stream of each backend on the application's client could use up its pool.
            has_change_stream: matches!(source, Source::Uri(_)),
            source,
            database: None,
            collection_prefix: Self::DEFAULT_COLLECTION_PREFIX.to_owned(),
            operation_timeout: Self::DEFAULT_OPERATION_TIMEOUT,
            clock: None,
            entry_size: ENTRY_SIZE,
            client: ClientSettings::default(),
        }
    }

    /// The name of the database with the queues, in 1 to 63 bytes, and not `admin`, `config` or
    /// `local`. The default is the database that the URI names; one of the two is required.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = Some(name.into());
        self
    }

    /// What the name of a queue's collection begins with; the queue's name follows. The default
    /// is [`DEFAULT_COLLECTION_PREFIX`](Self::DEFAULT_COLLECTION_PREFIX), `queue.`.
    ///
    /// The whole name may not begin with `system.` or contain `.system.`.
    ///
    /// The database's name, a dot, the prefix and a queue's name have at most 120 bytes in all. On
    /// DocumentDB 3.6 and 4.0 the prefix and a queue's name have at most 57. A call on a queue with a
    /// longer name is [`InvalidInput`](queue_api::ErrorKind::InvalidInput). Use an empty prefix only in
    /// a database that has nothing but queues.
    #[must_use]
    pub fn collection_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.collection_prefix = prefix.into();
        self
    }

    /// A PEM file with the certificate authorities to trust. It turns TLS on. The default is the
    /// URI's `tlsCAFile`, if any.
    ///
    /// DocumentDB needs the
    /// [bundle of AWS](https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem).
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.client.ca_file = Some(path.into());
        self
    }

    /// The name of the connections in the server's logs and in `currentOp`, in up to 128 bytes.
    /// The default is the URI's `appName`, else `queue-docdb/` and this crate's version.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.client.application_name = Some(name.into());
        self
    }

    /// The largest number of connections to each server, at least 1. The default is the URI's
    /// `maxPoolSize`, else 10.
    ///
    /// Further calls wait for a free connection, within their operation timeout.
    #[must_use]
    pub fn max_pool_size(mut self, connections: u32) -> Self {
        self.client.max_pool_size = Some(connections);
        self
    }

    /// How long a call may take, with all its commands and retries; at least 1 ms. Connecting is
    /// a call too. The default is
    /// [`DEFAULT_OPERATION_TIMEOUT`](Self::DEFAULT_OPERATION_TIMEOUT), 10 seconds. More than 366
    /// days count as 366 days.
    ///
    /// If a connection is silent, a command that may be repeated is sent again after a third of this
    /// time. All other commands, such as an insert, wait for their answer.
    ///
    /// `purge` and `redrive` may take this long for each thousand messages, `list_queues` for each queue,
    /// and `wait` for each look at the database.
    ///
    /// A listener gives up a call after 70 seconds. With more than 20 seconds here, a lease call may take
    /// longer than that.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// The clock for all times. The default is the server's time, which all processes share. Use
    /// another clock in tests only.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Waits use a change stream where the server has one. This is the default with a URI.
    ///
    /// An open stream takes one connection of the pool, one cursor and, on DocumentDB, I/O for
    /// each recorded change. With [`from_database`](DocDbBackend::from_database), each backend on
    /// the client takes a connection: the pool must be larger than their number, or all calls
    /// time out. With a URI, no stream is opened on an elastic cluster, nor in a pool of one
    /// connection.
    #[must_use]
    pub fn with_change_stream(mut self) -> Self {
        self.has_change_stream = true;
        self
    }

    /// Waits poll the queue, at least every 2 seconds. This is the default with
    /// [`from_database`](DocDbBackend::from_database).
    #[must_use]
    pub fn without_change_stream(mut self) -> Self {
        self.has_change_stream = false;
        self
    }

    /// How many messages may share a document: 1 to 64. The default is 16.
    ///
    /// Messages that are enqueued together with the same settings share one. A larger number is
    /// faster for large batches, and slower for many consumers that lease one message each: they
    /// compete for the same document. Instances may have different numbers.
    ///
    /// A queue that is made by an instance with 1 has no unique index: a message's document is found
    /// by its `_id`. Elastic clusters and sharded collections need that, because they have no unique
    /// index on other fields. On the endpoint of an elastic cluster it is always 1.
    #[must_use]
    pub fn entry_size(mut self, messages: usize) -> Self {
        self.entry_size = messages;
        self
    }

    /// Calls `handler` for every command that is sent and for its result. The default is none.
    ///
    /// The handler must not block. It gets a copy of each command, payloads included.
    #[must_use]
    pub fn command_event_handler(mut self, handler: impl Into<EventHandler<CommandEvent>>) -> Self {
        self.client.command_events = Some(handler.into());
        self
    }

    /// Connects, and checks that the server answers and accepts the credentials.
    ///
    /// It does not check the user's permissions: a missing one shows as
    /// [`Denied`](queue_api::ErrorKind::Denied) in the first call that needs it.
    ///
    /// # Errors
    /// - [`InvalidInput`](queue_api::ErrorKind::InvalidInput): a setting, a file or the URI is not
    ///   valid, or does not fit the servers, such as TLS, the certificates, `replicaSet` or a
    ///   direct connection to a secondary. `connect` returns it as soon as every server has a
    ///   mistake. It is also returned if tokio's clock is paused.
    /// - [`Denied`](queue_api::ErrorKind::Denied): the server refuses the credentials.
    /// - [`Unavailable`](queue_api::ErrorKind::Unavailable) or
    ///   [`TimedOut`](queue_api::ErrorKind::TimedOut): no server answered within the operation
    ///   timeout, or none is the primary. The text has each host with its reason.
    ///
    /// With [`from_database`](DocDbBackend::from_database), the driver gives its reason after the
    /// client's own `serverSelectionTimeoutMS`, which is 30 seconds by default.
    pub async fn connect(mut self) -> Result<DocDbBackend> {
        self.operation_timeout = self.operation_timeout.min(retry::LONGEST);
        let timeout = self.operation_timeout;
        if timeout < Duration::from_millis(1) {
            let message = format!("operation_timeout is {timeout:?}; it must be at least 1 ms");
            return Err(invalid(message));
        }
        if !(1..=LARGEST_ENTRY).contains(&self.entry_size) {
            let size = self.entry_size;
            let message = format!("entry_size is {size}; it must be 1 to {LARGEST_ENTRY}");
            return Err(invalid(message));
        }
        self.connect_within(Deadline::after(timeout)).await
    }

    async fn connect_within(self, deadline: Deadline) -> Result<DocDbBackend> {
        let mut entry_size = self.entry_size;
        let timeout = self.operation_timeout;
        let mut has_change_stream = self.has_change_stream;
        let is_own_client = matches!(self.source, Source::Database(_));
        let (database, engine) = match self.source {
            Source::Uri(uri) => {
                let options = connect::client_options(&uri, self.client, deadline).await?;
                let is_small = options.max_pool_size == Some(TOO_SMALL_FOR_STREAMS);
                let is_elastic = amazon::is_elastic(&options.hosts);
                has_change_stream &= !is_small && !is_elastic;
                if is_elastic {
                    entry_size = 1;
                }
                let name = self.database.or_else(|| options.default_database.clone());
                let name = name
                    .ok_or_else(|| invalid("neither the URI nor the builder names a database"))?;
                check_database(&name)?;
                // Checked before the connection, for an early error. Old engines allow less.
                Prefix::new(&name, self.collection_prefix.clone(), Engine::MongoDb)?;
                let (client, engine) = connect::client(&uri, options, deadline).await?;
                (client.database(&name), engine)
            }
            Source::Database(database) => {
                let ClientSettings {
                    ca_file,
                    application_name,
                    max_pool_size,
                    command_events,
                } = self.client;
                let settings = [
                    self.database.map(|_| "database"),
                    ca_file.map(|_| "ca_file"),
                    application_name.map(|_| "application_name"),
                    max_pool_size.map(|_| "max_pool_size"),
                    command_events.map(|_| "command_event_handler"),
                ];
                if let Some(setting) = settings.into_iter().flatten().next() {
                    let message = format!(
                        "{setting} is set, but from_database uses the application's client; set \
                         it there"
                    );
                    return Err(invalid(message));
                }
                check_database(database.name())?;
                connect::application_database(&database, deadline).await?
            }
        };
        let prefix = Prefix::new(database.name(), self.collection_prefix, engine)?;
        let time = match self.clock {
            Some(clock) => Time::Custom(clock),
            None => {
                let admin = database.client().database("admin");
                let clock = ServerClock::measure(admin, timeout, deadline);
                Time::Server(during(OPERATION, clock).await?)
            }
        };
        let queues = Arc::<Queues>::default();
        let watch = has_change_stream.then(|| {
            let queues = Arc::clone(&queues);
            Watch::new(database.clone(), timeout, prefix.clone(), queues)
        });
        Ok(DocDbBackend::new(Direct {
            database,
            prefix,
            timeout,
            time: Arc::new(time),
            queues,
            entry_size,
            engine,
            watch,
            runtime: ConnectRuntime::current(is_own_client),
        }))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URI may contain a password, and the driver's `Debug` of a database the user name.
        f.debug_struct("Source").finish_non_exhaustive()
    }
}
