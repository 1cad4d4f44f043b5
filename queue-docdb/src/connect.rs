//! Connections: from a URI, or from the application's client, to a server that answered.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use mongodb::{
    Client, Database,
    error::{Error as DriverError, ErrorKind as DriverKind},
    event::{EventHandler, command::CommandEvent},
    options::{
        ClientOptions, DatabaseOptions, ReadConcern, ReadConcernLevel, ReadPreference,
        SelectionCriteria, Tls, TlsOptions, WriteConcern,
    },
};
use queue_api::{Error, ErrorKind};

use crate::{
    amazon::{self, Engine},
    clock,
    error::{StoreError, during},
    retry::{self, Deadline},
};

const OPERATION: &str = "connect";

const APPLICATION_NAME: &str = concat!("queue-docdb/", env!("CARGO_PKG_VERSION"));

/// The server closes the connection of a client with a longer name.
const MAX_APPLICATION_NAME_BYTES: usize = 128;

/// How often the driver checks each server, unless the URI says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long opening a connection may take, unless the URI says otherwise: a third of the operation
/// timeout, within these bounds.
const CONNECT_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// How long a connection may be idle, unless the URI says otherwise. Load balancers forget idle
/// connections without a word: AWS's after 350 seconds, Azure's after 4 minutes.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/network-load-balancers.html>
/// <https://learn.microsoft.com/azure/load-balancer/load-balancer-tcp-idle-timeout>
const MAX_IDLE: Duration = Duration::from_secs(180);

/// The builder's settings for the driver's client.
#[derive(Default)]
pub(crate) struct ClientSettings {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) application_name: Option<String>,
    pub(crate) max_pool_size: Option<u32>,
    pub(crate) command_events: Option<EventHandler<CommandEvent>>,
}

impl ClientSettings {
    /// The name of a setting that is set, if any is.
    pub(crate) fn first_set(&self) -> Option<&'static str> {
        let Self {
            ca_file,
            application_name,
            max_pool_size,
            command_events,
        } = self;
        [
            (ca_file.is_some(), "ca_file"),
            (application_name.is_some(), "application_name"),
            (max_pool_size.is_some(), "max_pool_size"),
            (command_events.is_some(), "command_event_handler"),
        ]
        .into_iter()
        .find_map(|(is_set, name)| is_set.then_some(name))
    }
}

/// The driver's options: those of the URI and the builder, and what the contract needs.
pub(crate) async fn client_options(
    uri: &str,
    settings: ClientSettings,
    timeout: Duration,
) -> Result<ClientOptions, Error> {
    let mut options = match Deadline::after(timeout)
        .run(ClientOptions::parse(uri))
        .await
    {
        Ok(options) => options,
        Err(StoreError::Driver(error)) => return Err(explain_uri(uri, error, timeout).await),
        Err(error) => return Err(error.during(OPERATION)),
    };
    if amazon::is_amazon(&options.hosts) {
        amazon::prepare(uri, &mut options)?;
    }
    override_settings(&mut options, timeout);
    options.command_event_handler = settings.command_events;
    let name = settings.application_name.or(options.app_name);
    let name = name.unwrap_or_else(|| APPLICATION_NAME.to_owned());
    if name.len() > MAX_APPLICATION_NAME_BYTES {
        let message = format!(
            "application_name has {} bytes; it may have at most {MAX_APPLICATION_NAME_BYTES}",
            name.len()
        );
        return Err(Error::invalid(OPERATION, message));
    }
    options.app_name = Some(name);
    options.max_pool_size = settings.max_pool_size.or(options.max_pool_size);
    if options.max_pool_size == Some(0) {
        let message = "max_pool_size is 0; it must be at least 1";
        return Err(Error::invalid(OPERATION, message));
    }
    if let Some(path) = settings.ca_file.as_deref() {
        options.tls = Some(Tls::Enabled(tls_options(options.tls.take(), path)?));
    }
    // The URI may name the file too.
    if let Some(Tls::Enabled(TlsOptions {
        ca_file_path: Some(path),
        ..
    })) = &options.tls
    {
        check_ca_file(path)?;
    }
    Ok(options)
}

/// Sets what the contract depends on, whatever the URI says.
fn override_settings(options: &mut ClientOptions, timeout: Duration) {
    // DocumentDB before 8.0.2 refuses retryable writes.
    // https://docs.aws.amazon.com/documentdb/latest/developerguide/functional-differences.html
    options.retry_writes = Some(false);
    // This crate retries by itself, because it knows what a first try may have done.
    options.retry_reads = Some(false);
    // A secondary may not have seen the latest writes. The connection strings of the AWS console
    // ask for secondaries.
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.read_concern = None;
    options.write_concern = Some(WriteConcern::majority());
    // Less than the operation has after a silent connection: then the driver's own error, which
    // says more, comes before this crate's timeout.
    options.server_selection_timeout = Some(timeout.mul_f64(0.6));
    options.max_idle_time = options.max_idle_time.or(Some(MAX_IDLE));
    // The driver notices a silent primary after the sum of these two. Its defaults add up to
    // 20 seconds.
    // The server refuses to wait for longer than fits into its numbers.
    let heartbeat = options.heartbeat_freq.unwrap_or(HEARTBEAT);
    options.heartbeat_freq = Some(heartbeat.min(retry::LONGEST));
    let (shortest, longest) = CONNECT_TIMEOUTS;
    options.connect_timeout = Some(match options.connect_timeout {
        // Zero stands for no limit.
        Some(Duration::ZERO) => timeout,
        Some(connect_timeout) => connect_timeout.min(timeout),
        None => (timeout / 3).clamp(shortest, longest).min(timeout),
    });
}

/// A client whose server answered. The server has then accepted the credentials.
pub(crate) async fn client(
    options: ClientOptions,
    timeout: Duration,
) -> Result<(Client, Engine), Error> {
    let hosts = options.hosts.clone();
    let is_encrypted = matches!(options.tls, Some(Tls::Enabled(_)));
    let explain = |error: StoreError| match error {
        StoreError::Driver(error) if is_encrypted && is_about_certificates(&error) => {
            let message = "the server's certificate was refused: is it signed by a certificate \
                           in the CA file, and for the host name in the URI?";
            Error::invalid(OPERATION, message).with_source(error)
        }
        error => error.during(OPERATION),
    };
    let mut retries = Deadline::after(timeout).retries();
    loop {
        let client =
            Client::with_options(options.clone()).map_err(|error| explain(error.into()))?;
        match clock::hello_once(&client.database("admin"), &retries).await {
            Ok(hello) => return Ok((client, Engine::of(&hosts, &hello))),
            // The driver waits for a handshake without end, so the next try has a pool of its own.
            Err(error @ StoreError::TimedOut(_)) => retries.after(error).await.map_err(explain)?,
            Err(error) => return Err(explain(error)),
        }
    }
}

/// The application's database, with the read preference and write concern that the contract needs.
pub(crate) async fn application_database(
    database: &Database,
    timeout: Duration,
) -> Result<(Database, Engine), Error> {
    // These two fail outside transactions, or on DocumentDB. The others do no harm on a primary.
    if let Some(ReadConcern { level, .. }) = database.read_concern()
        && matches!(
            level,
            ReadConcernLevel::Linearizable | ReadConcernLevel::Snapshot
        )
    {
        let message = format!(
            "the database's read concern is {level:?}; leave it out, or use local or majority"
        );
        return Err(Error::invalid(OPERATION, message));
    }
    let mut options = DatabaseOptions::default();
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.write_concern = Some(WriteConcern::majority());
    options.read_concern = database.read_concern().cloned();
    let client = database.client();
    let hello = clock::hello(&client.database("admin"), timeout)
        .await
        .map_err(during(OPERATION))?;
    let database = client.database_with_options(database.name(), options);
    Ok((database, Engine::of(&[], &hello)))
}

/// Whether a certificate was the reason. The driver often passes on the TLS library's error as
/// text only.
fn is_about_certificates(error: &DriverError) -> bool {
    matches!(&*error.kind, DriverKind::InvalidTlsConfig { .. })
        || error.to_string().contains("certificate")
}

/// The TLS options of the URI, if any, with the CA file.
fn tls_options(from_uri: Option<Tls>, ca_file: &Path) -> Result<TlsOptions, Error> {
    let mut options = match from_uri {
        Some(Tls::Enabled(options)) => options,
        None => TlsOptions::default(),
        Some(Tls::Disabled) => {
            let message = "ca_file is set, but the URI turns TLS off; remove one of the two";
            return Err(Error::invalid(OPERATION, message));
        }
    };
    options.ca_file_path = Some(ca_file.to_owned());
    Ok(options)
}

/// Reads the CA file for a clear error. The driver skips what it cannot read, and then trusts no
/// server.
fn check_ca_file(path: &Path) -> Result<(), Error> {
    let text = std::fs::read(path).map_err(|error| {
        let message = format!("the CA file {} cannot be read", path.display());
        Error::invalid(OPERATION, message).with_source(error)
    })?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if !text.windows(marker.len()).any(|window| window == marker) {
        let path = path.display();
        let message = format!("the CA file {path} contains no certificate in PEM format");
        return Err(Error::invalid(OPERATION, message));
    }
    Ok(())
}

/// Says what is wrong with a URI without its password.
///
/// The driver quotes what it does not understand, and takes a password with an unescaped `/` or
/// `@` for a host or a database. So the URI is parsed again without its credentials.
async fn explain_uri(uri: &str, error: DriverError, timeout: Duration) -> Error {
    if matches!(&*error.kind, DriverKind::DnsResolve { .. }) {
        let message = "the host name was not resolved";
        return Error::new(ErrorKind::Unavailable, OPERATION, message).with_source(error);
    }
    let Some(anonymous) = without_credentials(uri) else {
        return Error::invalid(OPERATION, format!("the URI is not valid: {error}"));
    };
    let parsing = ClientOptions::parse(anonymous);
    let message = match Deadline::after(timeout).run(parsing).await {
        Err(StoreError::Driver(error)) => format!("the URI is not valid: {error}"),
        _ => "the user name or the password in the URI is not valid: \
              write : / ? # [ ] @ % in them percent-encoded"
            .to_owned(),
    };
    Error::invalid(OPERATION, message)
}

/// `uri` without its user information, if it has any.
fn without_credentials(uri: &str) -> Option<String> {
    let (_, hosts) = uri.rsplit_once('@')?;
    let scheme = uri
        .split_once("://")
        .map_or("mongodb", |(scheme, _)| scheme);
    Some(format!("{scheme}://{hosts}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn options_of(uri: &str, timeout: Duration) -> ClientOptions {
        let options = client_options(uri, ClientSettings::default(), timeout).await;
        options.unwrap_or_else(|error| panic!("{uri}: {error}"))
    }

    #[tokio::test]
    async fn an_invalid_uri_is_explained_without_its_password() {
        for (uri, hint) in [
            ("", "scheme"),
            ("localhost:27017", "scheme"),
            ("http://user:s3cret@localhost", "scheme"),
            ("mongodb://user:s3cret@localhost:port", "port"),
            (
                "mongodb://user:s3cret@localhost/?retryWrites=perhaps",
                "retryWrites",
            ),
            ("mongodb://user:s3/cret@localhost", "percent-encoded"),
            ("mongodb://user:s3@cret@localhost", "percent-encoded"),
            ("mongodb://user:s3:cret@localhost", "percent-encoded"),
            ("mongodb://user:s3%cret@localhost", "percent-encoded"),
            ("mongodb://user:s3?cret=@localhost", "percent-encoded"),
        ] {
            let error = client_options(uri, ClientSettings::default(), TIMEOUT)
                .await
                .expect_err(uri);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}");
            let text = format!("{error} {error:?}");
            let is_hint = text.to_lowercase().contains(&hint.to_lowercase());
            assert!(is_hint, "{uri}: {text}");
            let is_secret = text.contains("s3") || text.contains("cret");
            assert!(!is_secret, "{uri}: {text}");
        }
    }

    /// Every setting that `override_settings` replaces. Amazon's hosts accept them too.
    #[tokio::test]
    async fn settings_that_are_overridden_are_accepted() {
        let overridden = |options: ClientOptions| {
            (
                (options.retry_writes, options.retry_reads),
                options.selection_criteria,
                (options.read_concern, options.write_concern),
                options.server_selection_timeout,
            )
        };
        for host in ["localhost", "x.cluster-y.eu-west-1.docdb.amazonaws.com"] {
            let plain = overridden(options_of(&format!("mongodb://{host}/"), TIMEOUT).await);
            assert_eq!(plain.0, (Some(false), Some(false)));
            let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
            assert_eq!(plain.1, Some(primary));
            assert_eq!(plain.2, (None, Some(WriteConcern::majority())));
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
                let uri = format!("mongodb://{host}/?{settings}");
                assert_eq!(overridden(options_of(&uri, TIMEOUT).await), plain, "{uri}");
            }
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_noticed_soon_unless_the_uri_says_otherwise() {
        let of = async |uri: &str, timeout| {
            let options = options_of(uri, timeout).await;
            (options.heartbeat_freq, options.connect_timeout)
        };
        let seconds = |n| Some(Duration::from_secs(n));
        let uri = "mongodb://localhost";
        for (timeout, connect) in [(60, 5), (15, 5), (9, 3), (2, 1), (1, 1)] {
            let timeout = Duration::from_secs(timeout);
            assert_eq!(of(uri, timeout).await, (seconds(5), seconds(connect)));
        }
        let short = Duration::from_millis(500);
        assert_eq!(of(uri, short).await, (seconds(5), Some(short)));
        let uri = "mongodb://localhost/?heartbeatFrequencyMS=1000&connectTimeoutMS=3000";
        assert_eq!(of(uri, TIMEOUT).await, (seconds(1), seconds(3)));
        let uri = "mongodb://localhost/?connectTimeoutMS=0";
        assert_eq!(of(uri, TIMEOUT).await, (seconds(5), seconds(5)), "no limit");
        let most = u64::MAX;
        let uri =
            format!("mongodb://localhost/?heartbeatFrequencyMS={most}&connectTimeoutMS={most}");
        let year = Some(retry::LONGEST);
        assert_eq!(of(&uri, TIMEOUT).await, (year, seconds(5)));
        let uri = "mongodb://localhost/?connectTimeoutMS=100000";
        assert_eq!(of(uri, TIMEOUT).await, (seconds(5), Some(TIMEOUT)));
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_unless_the_uri_says_otherwise() {
        let of = async |uri: &str| options_of(uri, TIMEOUT).await.max_idle_time;
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(of("mongodb://localhost").await, seconds(180));
        let uri = "mongodb://shop.cluster-x.eu-west-1.docdb.amazonaws.com";
        assert_eq!(of(uri).await, seconds(180));
        let uri = "mongodb://localhost/?maxIdleTimeMS=";
        assert_eq!(of(&format!("{uri}1000")).await, seconds(1));
        assert_eq!(of(&format!("{uri}900000")).await, seconds(900));
        assert_eq!(of(&format!("{uri}0")).await, seconds(0), "no limit");
    }

    #[tokio::test]
    async fn the_application_name_is_the_builders_or_the_uris_or_the_crates() {
        let name = async |uri: &str, name: Option<&str>| {
            let settings = ClientSettings {
                application_name: name.map(str::to_owned),
                ..ClientSettings::default()
            };
            let options = client_options(uri, settings, TIMEOUT).await;
            options.map(|options| options.app_name.expect("a name"))
        };
        let (plain, named) = ("mongodb://localhost/", "mongodb://localhost/?appName=shop");
        let default = name(plain, None).await.expect("valid");
        assert!(default.starts_with("queue-docdb/"));
        assert_eq!(name(named, None).await.expect("valid"), "shop");
        assert_eq!(name(named, Some("mail")).await.expect("valid"), "mail");
        let long = "x".repeat(129);
        name(plain, Some(&long)).await.expect_err("129 bytes");
    }

    #[tokio::test]
    async fn a_ca_file_without_tls_is_refused() {
        let settings = ClientSettings {
            ca_file: Some("bundle.pem".into()),
            ..ClientSettings::default()
        };
        let error = client_options("mongodb://localhost/?tls=false", settings, TIMEOUT).await;
        let error = error.expect_err("one of them must be wrong");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("TLS off"), "{error}");
    }
}
