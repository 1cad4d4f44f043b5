//! The connection, from flags, environment and profile.

use std::sync::Arc;

use clap::{ArgMatches, parser::ValueSource};
use queue_api::{Admin, Queue, QueueName};
use queue_docdb::{DocDbBackend, DocDbBuilder};

use crate::{
    cli::ConnectArgs,
    duration,
    failure::{Failure, Result},
    profile,
    secret::SecretUri,
};

const APPLICATION_NAME: &str = concat!("queuectl/", env!("CARGO_PKG_VERSION"));

/// The queues of one database.
pub(crate) struct Connection {
    backend: Arc<DocDbBackend>,
    pub(crate) admin: Admin,
    /// The hosts, the database and the prefix, for messages.
    pub(crate) place: String,
}

impl Connection {
    pub(crate) fn queue(&self, name: &QueueName) -> Result<Queue> {
        Ok(Queue::new(self.backend.clone(), name)?)
    }
}

/// Refuses a password where other users of the machine see it. The environment is for this user
/// alone.
pub(crate) fn check_command_line(args: &ConnectArgs, matches: &ArgMatches) -> Result<()> {
    let is_typed = matches.value_source("uri") == Some(ValueSource::CommandLine);
    let uri = args.uri.clone().map(SecretUri::new);
    if is_typed && uri.is_some_and(|uri| uri.has_password()) {
        let text = "--uri has a password, and other users of this machine can see the command \
                    line; leave it out, and put it into a file for --password-file or \
                    QUEUECTL_PASSWORD_FILE, into the uri of a profile, or into QUEUECTL_URI";
        return Err(Failure::usage(text));
    }
    Ok(())
}

pub(crate) async fn connect(args: ConnectArgs) -> Result<Connection> {
    let profile = profile::find(&args)?;
    let uri = args.uri.or(profile.uri).ok_or_else(|| {
        let text = "there is no URI; set --uri, QUEUECTL_URI, or a profile with --profile or \
                    QUEUECTL_PROFILE";
        Failure::usage(text)
    })?;
    let password_file = args.password_file.or(profile.password_file);
    let uri = SecretUri::new(uri);
    let hosts = uri.hosts();
    let uri = uri.complete(password_file.as_deref())?;
    let profile_timeout = profile.timeout.as_deref().map(duration::parse).transpose();
    let profile_timeout = profile_timeout
        .map_err(|text| Failure::usage(format!("timeout of the profile: {text}")))?;

    let mut builder = DocDbBackend::builder(uri)
        .application_name(APPLICATION_NAME)
        .without_change_stream();
    let database = args.database.or(profile.database);
    if let Some(database) = &database {
        builder = builder.database(database);
    }
    let prefix = args.prefix.or(profile.prefix);
    let prefix = prefix.unwrap_or_else(|| DocDbBuilder::DEFAULT_COLLECTION_PREFIX.to_owned());
    builder = builder.collection_prefix(&prefix);
    if let Some(file) = args.ca_file.or(profile.ca_file) {
        builder = builder.ca_file(file);
    }
    if let Some(timeout) = args.timeout.or(profile_timeout) {
        builder = builder.operation_timeout(timeout);
    }
    let backend = Arc::new(builder.connect().await?);
    let admin = Admin::new(backend.clone());
    let of_uri = || Some(backend.client().default_database()?.name().to_owned());
    let database = database.or_else(of_uri).unwrap_or_default();
    let place = format!("database {database} of {hosts} with prefix {prefix:?}");
    Ok(Connection {
        backend,
        admin,
        place,
    })
}
