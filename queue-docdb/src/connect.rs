//! Connecting: from a URI to a database that answered.

use std::{path::Path, time::Duration};

use mongodb::{
    Client, Database,
    error::{Error as DriverError, ErrorKind as DriverKind},
    options::{
        ClientOptions, DatabaseOptions, ReadConcern, ReadConcernLevel, ReadPreference,
        SelectionCriteria, Tls, TlsOptions, WriteConcern,
    },
};
use queue_api::{Error, ErrorKind};

use crate::{
    amazon,
    builder::ClientSettings,
    clock,
    collection::run,
    error::{StoreError, during},
};

const OPERATION: &str = "connect";

const APPLICATION_NAME: &str = concat!("queue-docdb/", env!("CARGO_PKG_VERSION"));

/// How often the driver asks a server how it is, unless the URI says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long it may take to connect to one, unless the URI says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the URI asks for, with everything set that the contract depends on.
pub(crate) async fn options(
    uri: &str,
    settings: ClientSettings,
    timeout: Duration,
) -> Result<ClientOptions, Error> {
    let mut options = match run(timeout, ClientOptions::parse(uri)).await {
        Ok(options) => options,
        Err(StoreError::Driver(error)) => return Err(explain_uri(uri, error, timeout).await),
        Err(error) => return Err(error.during(OPERATION)),
    };
    if amazon::is_amazon(&options.hosts) {
        amazon::prepare(uri, &mut options)?;
    }
    // DocumentDB before 8.0.2 refuses every write that asks to be retryable.
    // https://docs.aws.amazon.com/documentdb/latest/developerguide/functional-differences.html
    options.retry_writes = Some(false);
    // Retries are made here, where it is known what a first try may have done.
    options.retry_reads = Some(false);
    // A claim that reads what a replica has not seen yet claims what is gone. The connection
    // strings of the AWS console ask for secondaries.
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.read_concern = None;
    options.write_concern = Some(WriteConcern::majority());
    // A little less than the operation has, so that the driver's explanation of what it was
    // waiting for arrives before the operation is given up.
    options.server_selection_timeout = Some(timeout.mul_f64(0.9));
    // How long a primary that went silent is waited for is the sum of the two: the driver asks
    // its servers how they are at the one interval, and takes the other to find that nobody
    // answers. Its own defaults make 20 seconds of it.
    options.heartbeat_freq = options.heartbeat_freq.or(Some(HEARTBEAT));
    options.connect_timeout = options.connect_timeout.or(Some(CONNECT_TIMEOUT));
    options.connect_timeout = options.connect_timeout.map(|most| most.min(timeout));
    options.command_event_handler = settings.command_events;
    options.app_name = settings
        .application_name
        .or(options.app_name)
        .or_else(|| Some(APPLICATION_NAME.to_owned()));
    check_application_name(options.app_name.as_deref().unwrap_or_default())?;
    if settings.max_pool_size == Some(0) {
        return Err(Error::invalid(OPERATION, "a pool of no connections"));
    }
    options.max_pool_size = settings.max_pool_size.or(options.max_pool_size);
    if let Some(path) = settings.ca_file.as_deref() {
        options.tls = Some(Tls::Enabled(tls_options(options.tls.take(), path)?));
    }
    // Also where the URI names it.
    if let Some(Tls::Enabled(TlsOptions {
        ca_file_path: Some(path),
        ..
    })) = &options.tls
    {
        check_ca_file(path)?;
    }
    Ok(options)
}

/// A client whose server answered, which implies that it took the credentials.
pub(crate) async fn client(options: ClientOptions, timeout: Duration) -> Result<Client, Error> {
    let is_encrypted = matches!(options.tls, Some(Tls::Enabled(_)));
    let explain = |error: StoreError| match error {
        StoreError::Driver(error) if is_encrypted && is_about_certificates(&error) => {
            let message = "the server's certificate was refused: is it signed by a certificate \
                           in the CA file, and for the host name in the URI?";
            Error::invalid(OPERATION, message).with_source(error)
        }
        error => error.during(OPERATION),
    };
    let client = Client::with_options(options).map_err(|error| explain(error.into()))?;
    clock::hello(&client.database("admin"), timeout)
        .await
        .map_err(explain)?;
    Ok(client)
}

/// A database of the application's, with what the contract depends on.
pub(crate) async fn given(database: &Database, timeout: Duration) -> Result<Database, Error> {
    // These fail outside transactions, or on DocumentDB; the others read what the primary has.
    if let Some(ReadConcern { level, .. }) = database.read_concern()
        && matches!(
            level,
            ReadConcernLevel::Linearizable | ReadConcernLevel::Snapshot
        )
    {
        let message = format!(
            "the database has the read concern {level:?}; hand in one without a read concern"
        );
        return Err(Error::invalid(OPERATION, message));
    }
    let mut options = DatabaseOptions::default();
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.write_concern = Some(WriteConcern::majority());
    options.read_concern = database.read_concern().cloned();
    let client = database.client();
    clock::hello(&client.database("admin"), timeout)
        .await
        .map_err(during(OPERATION))?;
    Ok(client.database_with_options(database.name(), options))
}

/// The server closes the connection of a client whose name is longer.
fn check_application_name(name: &str) -> Result<(), Error> {
    if name.len() > 128 {
        let message = format!("an application name of {} bytes, at most 128", name.len());
        return Err(Error::invalid(OPERATION, message));
    }
    Ok(())
}

/// Whether a certificate was the reason. The driver wraps what the TLS library says in text,
/// where it does not see for itself that a file holds no certificate.
fn is_about_certificates(error: &DriverError) -> bool {
    matches!(&*error.kind, DriverKind::InvalidTlsConfig { .. })
        || error.to_string().contains("certificate")
}

/// The TLS options of the URI, if it has any, with the CA file.
fn tls_options(from_uri: Option<Tls>, ca_file: &Path) -> Result<TlsOptions, Error> {
    let mut options = match from_uri {
        Some(Tls::Enabled(options)) => options,
        None => TlsOptions::default(),
        Some(Tls::Disabled) => {
            return Err(Error::invalid(
                OPERATION,
                "a CA file is given, but the URI says that TLS is off",
            ));
        }
    };
    options.ca_file_path = Some(ca_file.to_owned());
    Ok(options)
}

/// Reads the CA file for the sake of a clear error: the driver passes over what it cannot
/// read, and then no server is trusted.
fn check_ca_file(path: &Path) -> Result<(), Error> {
    let text = std::fs::read(path).map_err(|error| {
        let message = format!("the CA file {} cannot be read", path.display());
        Error::invalid(OPERATION, message).with_source(error)
    })?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if !text.windows(marker.len()).any(|window| window == marker) {
        return Err(Error::invalid(
            OPERATION,
            format!(
                "the CA file {} holds no certificate in PEM form",
                path.display()
            ),
        ));
    }
    Ok(())
}

/// Says what is wrong with a URI without giving away its password.
///
/// The driver quotes what it does not understand, and a password with an unescaped `/` or `@`
/// looks like a host or a database to it. So the URI is judged once more without its
/// credentials: what is wrong with that may be told.
async fn explain_uri(uri: &str, error: DriverError, timeout: Duration) -> Error {
    if matches!(&*error.kind, DriverKind::DnsResolve { .. }) {
        return Error::new(
            ErrorKind::Unavailable,
            OPERATION,
            "the host name was not resolved",
        )
        .with_source(error);
    }
    let Some(anonymous) = without_credentials(uri) else {
        return Error::invalid(OPERATION, format!("the URI is not valid: {error}"));
    };
    match run(timeout, ClientOptions::parse(anonymous)).await {
        Err(StoreError::Driver(error)) => {
            Error::invalid(OPERATION, format!("the URI is not valid: {error}"))
        }
        _ => Error::invalid(
            OPERATION,
            "the user name or the password in the URI is not valid: in them \
             : / ? # [ ] @ % must be percent-encoded",
        ),
    }
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

    #[tokio::test]
    async fn what_is_wrong_with_a_uri_is_said_without_its_password() {
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
            let error = options(uri, ClientSettings::default(), TIMEOUT)
                .await
                .expect_err(uri);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}");
            let text = format!("{error} {error:?}");
            assert!(
                text.to_lowercase().contains(&hint.to_lowercase()),
                "{uri}: {text}"
            );
            assert!(
                !text.contains("s3") && !text.contains("cret"),
                "{uri}: {text}"
            );
        }
    }

    #[tokio::test]
    async fn what_the_contract_needs_overrides_the_uri() {
        let uri = "mongodb://localhost/?retryWrites=true&readPreference=secondary&w=1";
        let options = options(uri, ClientSettings::default(), TIMEOUT)
            .await
            .expect("a valid URI");
        assert_eq!(options.retry_writes, Some(false));
        assert_eq!(options.write_concern, Some(WriteConcern::majority()));
        assert!(matches!(
            options.selection_criteria,
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        ));
    }

    #[tokio::test]
    async fn a_silent_server_is_noticed_soon_unless_the_uri_says_otherwise() {
        let of = async |uri: &str, timeout| {
            let options = options(uri, ClientSettings::default(), timeout).await;
            let options = options.expect("a valid URI");
            (options.heartbeat_freq, options.connect_timeout)
        };
        let seconds = |n| Some(Duration::from_secs(n));
        let uri = "mongodb://localhost";
        assert_eq!(of(uri, TIMEOUT).await, (seconds(5), seconds(5)));
        assert_eq!(
            of(uri, Duration::from_secs(2)).await,
            (seconds(5), seconds(2))
        );
        let uri = "mongodb://localhost/?heartbeatFrequencyMS=1000&connectTimeoutMS=3000";
        assert_eq!(of(uri, TIMEOUT).await, (seconds(1), seconds(3)));
    }

    #[tokio::test]
    async fn connections_have_a_name() {
        let name = async |uri: &str, name: Option<&str>| {
            let settings = ClientSettings {
                application_name: name.map(str::to_owned),
                ..ClientSettings::default()
            };
            options(uri, settings, TIMEOUT).await.map(|o| o.app_name)
        };
        let (plain, named) = ("mongodb://localhost/", "mongodb://localhost/?appName=shop");
        let default = name(plain, None).await.expect("valid");
        assert!(default.expect("a name").starts_with("queue-docdb/"));
        assert_eq!(
            name(named, None).await.expect("valid").as_deref(),
            Some("shop")
        );
        let set = name(named, Some("mail")).await.expect("valid");
        assert_eq!(set.as_deref(), Some("mail"));
        let long = "x".repeat(129);
        name(plain, Some(&long))
            .await
            .expect_err("the server takes 128");
    }

    #[tokio::test]
    async fn a_ca_file_and_no_tls_is_a_contradiction() {
        let pem = std::env::temp_dir().join(format!("queue-docdb-{}.pem", std::process::id()));
        std::fs::write(&pem, "-----BEGIN CERTIFICATE-----\n").expect("a writable folder");
        let settings = ClientSettings {
            ca_file: Some(pem.clone()),
            ..ClientSettings::default()
        };
        let error = options("mongodb://localhost/?tls=false", settings, TIMEOUT).await;
        std::fs::remove_file(&pem).expect("just written");
        let error = error.expect_err("one of them must be wrong");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("TLS is off"));
    }
}
