//! The connection, from flags, environment and profile.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{ArgMatches, parser::ValueSource};
use queue_api::{Admin, Queue, QueueName};
use queue_docdb::{
    DocDbBackend, DocDbBuilder,
    mongodb::{
        Database,
        bson::{Document, doc},
    },
};

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
    pub(crate) backend: Arc<DocDbBackend>,
    pub(crate) admin: Admin,
    /// The hosts, the database and the prefix, for messages.
    pub(crate) place: String,
    database: String,
    pub(crate) prefix: String,
    /// How long a call may take.
    pub(crate) timeout: Duration,
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

/// Leaves out a profile that only the environment names, if the command line has a URI: its password
/// belongs to another server.
pub(crate) fn leave_out_foreign_profile(args: &mut ConnectArgs, matches: &ArgMatches) {
    let source = |name| matches.value_source(name);
    if source("uri") == Some(ValueSource::CommandLine)
        && source("profile") == Some(ValueSource::EnvVariable)
    {
        args.profile = None;
    }
}

/// What flags, environment and profile say.
pub(crate) struct Settings {
    /// With its password.
    pub(crate) uri: String,
    /// Those of the URI, for messages.
    hosts: String,
    pub(crate) database: Option<String>,
    pub(crate) prefix: String,
    pub(crate) ca_file: Option<PathBuf>,
    timeout: Option<Duration>,
}

impl Settings {
    pub(crate) fn of(args: ConnectArgs) -> Result<Self> {
        let profile = profile::find(&args)?;
        let uri = args.uri.or(profile.uri).ok_or_else(|| {
            let text = "there is no URI; set --uri, QUEUECTL_URI, or a profile with --profile or \
                        QUEUECTL_PROFILE";
            Failure::usage(text)
        })?;
        let profile_timeout = profile.timeout.as_deref().map(duration::parse_positive);
        let profile_timeout = profile_timeout.transpose();
        let profile_timeout = profile_timeout
            .map_err(|text| Failure::usage(format!("timeout of the profile: {text}")))?;
        let prefix = args.prefix.or(profile.prefix);
        let database = args.database.or(profile.database);
        let uri = SecretUri::new(uri);
        // Before the question for a password.
        if database.is_none() && uri.lacks_database() {
            let text = "no database is named: set --database, QUEUECTL_DATABASE, or one in the URI";
            return Err(Failure::usage(text));
        }
        let hosts = uri.hosts();
        let password_file = args.password_file.or(profile.password_file);
        let uri = uri.complete(password_file.as_deref())?;
        Ok(Self {
            uri,
            hosts,
            database,
            prefix: prefix.unwrap_or_else(|| DocDbBuilder::DEFAULT_COLLECTION_PREFIX.to_owned()),
            ca_file: args.ca_file.or(profile.ca_file),
            timeout: args.timeout.or(profile_timeout),
        })
    }

    pub(crate) fn builder(&self) -> DocDbBuilder {
        let mut builder = DocDbBackend::builder(&self.uri)
            .application_name(APPLICATION_NAME)
            .collection_prefix(&self.prefix)
            .without_change_stream();
        if let Some(database) = &self.database {
            builder = builder.database(database);
        }
        if let Some(file) = &self.ca_file {
            builder = builder.ca_file(file);
        }
        if let Some(timeout) = self.timeout {
            builder = builder.operation_timeout(timeout);
        }
        builder
    }
}

/// The filter for the names of collections that begin with the prefix. A prefix may have a dot.
pub(crate) fn collections_of(prefix: &str) -> Document {
    let pattern = format!("^{}", prefix.replace('.', "\\."));
    doc! { "name": { "$regex": pattern } }
}

pub(crate) async fn connect(args: ConnectArgs) -> Result<Connection> {
    Connection::open(&Settings::of(args)?).await
}

impl Connection {
    async fn open(settings: &Settings) -> Result<Self> {
        Ok(Self::new(settings.builder().connect().await?, settings))
    }

    pub(crate) fn new(backend: DocDbBackend, settings: &Settings) -> Self {
        let backend = Arc::new(backend);
        let of_uri = backend.client().default_database();
        let of_uri = of_uri.map(|database| database.name().to_owned());
        let database = settings.database.clone().or(of_uri).unwrap_or_default();
        let Settings { hosts, prefix, .. } = settings;
        Self {
            admin: Admin::new(backend.clone()),
            place: format!("database {database} of {hosts} with prefix {prefix:?}"),
            prefix: prefix.clone(),
            timeout: settings
                .timeout
                .unwrap_or(DocDbBuilder::DEFAULT_OPERATION_TIMEOUT),
            database,
            backend,
        }
    }

    /// The database, for what the backend does not show.
    pub(crate) fn database(&self) -> Database {
        self.backend.client().database(&self.database)
    }
}
