//! Connections: from a URI, or from the application's client, to a server that answered.

pub(crate) mod amazon;
mod error;
mod hello;
pub(crate) mod operation;
pub(crate) mod runtime;
mod server_check;
mod tls_check;
mod tls_files;
pub(crate) mod uri;

use std::{path::PathBuf, sync::Arc, time::Duration};

use mongodb::{
    Client, Database,
    bson::Document,
    error::ErrorKind as DriverKind,
    event::{EventHandler, command::CommandEvent},
    options::{
        ClientOptions, DatabaseOptions, ReadConcern, ReadConcernLevel, ReadPreference,
        SelectionCriteria, Tls, TlsOptions, WriteConcern,
    },
};
use queue_api::Error;
use tokio::time::Instant;

use self::{
    amazon::Engine,
    hello::{Verdict, judge},
    operation::{OPERATION, invalid},
    server_check::{Checks, Mistake},
};
use crate::store::{
    clock,
    codes::NOT_PRIMARY,
    error::{Refusal, StoreError},
    retry::{self, Deadline, Retries},
};

const APPLICATION_NAME: &str = concat!("queue-docdb/", env!("CARGO_PKG_VERSION"));

/// The server closes the connection of a client with a longer name.
const MAX_APPLICATION_NAME_BYTES: usize = 128;

/// How often the driver checks each server, unless the URI says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long opening a connection may take, unless the URI says otherwise: a third of the operation
/// timeout, within these bounds.
const CONNECT_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// How long a connection may be idle, unless the URI says otherwise. Load balancers close idle
/// connections without notice: AWS's after 350 seconds, Azure's after 4 minutes.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/network-load-balancers.html>
/// <https://learn.microsoft.com/azure/load-balancer/load-balancer-tcp-idle-timeout>
const MAX_IDLE: Duration = Duration::from_secs(180);

/// The builder's settings for the driver's client.
#[derive(Debug, Default)]
pub(crate) struct ClientSettings {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) application_name: Option<String>,
    pub(crate) max_pool_size: Option<u32>,
    pub(crate) command_events: Option<EventHandler<CommandEvent>>,
}

/// The driver's options: those of the URI and the builder, and what the contract needs.
pub(crate) async fn client_options(
    uri: &str,
    settings: ClientSettings,
    deadline: Deadline,
) -> Result<ClientOptions, Error> {
    let parts = uri::check(uri)?;
    let mut options = match deadline.run(ClientOptions::parse(uri)).await {
        Ok(options) => options,
        Err(StoreError::Driver(error)) => return Err(parts.explain(error, deadline).await),
        Err(error) => return Err(error.during(OPERATION)),
    };
    if amazon::is_amazon(&options.hosts) {
        amazon::prepare(uri, &mut options)?;
    }
    override_settings(&mut options, deadline.of_call());
    options.command_event_handler = settings.command_events;
    let name = settings.application_name.or(options.app_name);
    let name = name.unwrap_or_else(|| APPLICATION_NAME.to_owned());
    if name.len() > MAX_APPLICATION_NAME_BYTES {
        let message = format!(
            "application_name has {} bytes; it may have at most {MAX_APPLICATION_NAME_BYTES}",
            name.len()
        );
        return Err(invalid(message));
    }
    options.app_name = Some(name);
    options.max_pool_size = settings.max_pool_size.or(options.max_pool_size);
    if options.max_pool_size == Some(0) {
        return Err(invalid("max_pool_size is 0; it must be at least 1"));
    }
    if let Some(path) = settings.ca_file {
        let enabled = Tls::Enabled(TlsOptions::default());
        let Tls::Enabled(tls) = options.tls.get_or_insert(enabled) else {
            let message = "ca_file is set, but the URI turns TLS off; remove one of the two";
            return Err(invalid(message));
        };
        tls.ca_file_path = Some(path);
    }
    // The URI may name the file too.
    if let Some(Tls::Enabled(tls)) = &options.tls {
        tls_files::check(tls, deadline).await?;
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
    uri: &str,
    options: ClientOptions,
    deadline: Deadline,
) -> Result<(Client, Engine), Error> {
    let (host, mut retries) = (options.hosts[0].to_string(), deadline.retries());
    loop {
        let checks = Arc::<Checks>::default();
        let mut checked = options.clone();
        checked.sdam_event_handler = Some(checks.handler());
        let client =
            Client::with_options(checked).map_err(|error| error::by_driver(&options, error))?;
        let admin = client.database("admin");
        let error = tokio::select! {
            // The checks tell mistakes.
            answer = primary(&admin, &mut retries, Some(&options)) => match answer {
                Ok(hello) => return Ok((client, Engine::of(&options.hosts, &hello))),
                Err(error) => error,
            },
            mistakes = checks.mistakes(&options, deadline) => {
                return Err(error::by_mistakes(mistakes));
            }
        };
        // Nothing checks the servers behind a load balancer.
        if options.load_balanced == Some(true)
            && let StoreError::Driver(error) = &error
            && let within = tls_check::probe_time(deadline.left())
            && let Some(text) = tls_check::find(error, &host, &options, within).await
        {
            let cause = Some(error.clone());
            return Err(error::by_mistakes(vec![Mistake { text, cause }]));
        }
        // The driver has waited for a server.
        let error = match is_server_selection(&error) {
            true => error,
            // It waits for a handshake without end, so the next try has a pool of its own.
            false => match retries.after(error).await {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        return Err(error::by_server(uri, &options, error, checks.diagnosis()));
    }
}

fn is_server_selection(error: &StoreError) -> bool {
    matches!(error, StoreError::Driver(error)
        if matches!(&*error.kind, DriverKind::ServerSelection { .. }))
}

/// The answer of a server that takes writes. `options`: unknown, if the client is the application's. Then
/// nothing else reports a mistake that lasts, and nothing replaces a pool that is silent.
async fn primary(
    admin: &Database,
    retries: &mut Retries,
    options: Option<&ClientOptions>,
) -> Result<Document, StoreError> {
    let mut first_mistake = None;
    loop {
        let hello = match options {
            Some(_) => clock::hello_once(admin, retries).await?,
            None => clock::hello(admin, retries).await?,
        };
        let host = options.map(|options| options.hosts[0].to_string());
        let host = host.as_deref().or(hello.get_str("me").ok());
        let message = match judge(&hello, host.unwrap_or("the server"), options) {
            Verdict::Writable => return Ok(hello),
            Verdict::Mistake(mistake) => return Err(StoreError::Invalid(mistake)),
            Verdict::Uninitiated(mistake) | Verdict::Secondary(mistake) => {
                let first = *first_mistake.get_or_insert_with(Instant::now);
                if options.is_none() && first.elapsed() > server_check::STARTING {
                    return Err(StoreError::Invalid(mistake));
                }
                mistake
            }
            Verdict::NotThePrimary => {
                first_mistake = None;
                "the server is not the primary, and knows none".to_owned()
            }
        };
        let code = NOT_PRIMARY;
        retries.after(Refusal { code, message }.into()).await?;
    }
}

/// The application's database, with the read preference and write concern that the contract needs.
pub(crate) async fn application_database(
    database: &Database,
    deadline: Deadline,
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
        return Err(invalid(message));
    }
    let mut options = DatabaseOptions::default();
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.write_concern = Some(WriteConcern::majority());
    options.read_concern = database.read_concern().cloned();
    let client = database.client();
    let (admin, mut retries) = (client.database("admin"), deadline.retries());
    let hello = primary(&admin, &mut retries, None).await;
    let hello = hello.map_err(error::own_client)?;
    let database = client.database_with_options(database.name(), options);
    Ok((database, Engine::of(&[], &hello)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn options_of(uri: &str, timeout: Duration) -> ClientOptions {
        let options =
            client_options(uri, ClientSettings::default(), Deadline::after(timeout)).await;
        options.unwrap_or_else(|error| panic!("{uri}: {error}"))
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
}
