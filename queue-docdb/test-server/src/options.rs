//! Options of a dedicated server.

use std::path::Path;

use uuid::Uuid;

use crate::replica_set;

const KEY_FILE: &str = "key-file";

/// Options of a dedicated server: arguments, files, access control.
///
/// ```
/// use mongodb_test_server::ServerOptions;
///
/// # let certificate_and_key = Vec::new();
/// let options = ServerOptions::new()
///     .with_file("server.pem", certificate_and_key, 0o400)
///     .with_arguments(["--tlsMode", "preferTLS"])
///     .with_arguments(["--tlsCertificateKeyFile", "{server.pem}"])
///     .with_access_control();
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ServerOptions {
    arguments: Vec<String>,
    files: Vec<ServerFile>,
    key: Option<String>,
    storage: Storage,
    deployment: Deployment,
}

/// What the server is part of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Deployment {
    /// The primary of a replica set.
    #[default]
    ReplicaSet,
    /// The member of a replica set that was never initiated.
    Uninitiated,
    Standalone,
}

/// A file for the server.
#[derive(Debug, Clone)]
pub(crate) struct ServerFile {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// Where a container keeps its data. A process always has a temporary folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Storage {
    #[default]
    Memory,
    /// The data of a replica set's member, which survive a restart.
    Disk,
}

impl ServerOptions {
    /// No arguments, no files, no access control.
    pub fn new() -> Self {
        Self::default()
    }

    /// A member of a replica set of three.
    pub(crate) fn member() -> Self {
        let options = Self {
            storage: Storage::Disk,
            ..Self::default()
        };
        options.with_arguments([
            // After SIGTERM and a step-down, a member answers for 15 s without taking commands,
            // by default.
            "--setParameter",
            "shutdownTimeoutMillisForSignaledShutdown=500",
            // A secondary waits 5 s for a silent member that it copies from, by default, and
            // then tries it once more. Until then no write has a majority.
            "--setParameter",
            "oplogNetworkTimeoutBufferSeconds=1",
        ])
    }

    /// Makes the server a standalone, which has no transactions and no change streams.
    pub fn as_standalone(mut self) -> Self {
        self.deployment = Deployment::Standalone;
        self
    }

    /// Leaves the replica set without a configuration, as before `rs.initiate()`.
    pub fn without_initiation(mut self) -> Self {
        self.deployment = Deployment::Uninitiated;
        self
    }

    /// Adds arguments for `mongod`. `{name}` becomes the path of the
    /// [file](Self::with_file) `name`.
    ///
    /// Do not repeat the arguments that every server has: `--dbpath`, `--bind_ip`, `--port`,
    /// `--replSet`, `--oplogSize`, `--wiredTigerCacheSizeGB`, `--nounixsocket`. The server must
    /// accept connections without TLS (`preferTLS`, not `requireTLS`).
    pub fn with_arguments<A: Into<String>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a file, owned by the user that the server runs as.
    ///
    /// # Panics
    /// If the name is not a plain file name.
    pub fn with_file(
        mut self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        mode: u32,
    ) -> Self {
        let name = name.into();
        assert!(
            Path::new(&name).file_name() == Some(name.as_ref()),
            "the file's name is {name:?}; it must be a plain file name"
        );
        self.files.push(ServerFile {
            name,
            bytes: bytes.into(),
            mode,
        });
        self
    }

    /// Makes clients log in. Create users with a client of
    /// [`MongoServer::admin_uri`](crate::MongoServer::admin_uri).
    pub fn with_access_control(mut self) -> Self {
        if self.key.is_some() {
            return self;
        }
        // Hexadecimal digits are valid in a key file and need no escape in a URI.
        let key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.key = Some(key.clone());
        // mongod refuses a key file that others may read.
        self.with_file(KEY_FILE, key, 0o400)
            .with_arguments(["--keyFile".to_owned(), format!("{{{KEY_FILE}}}")])
            // Without it, every client of the loopback has all rights while there is no user.
            .with_arguments(["--setParameter", "enableLocalhostAuthBypass=false"])
    }

    pub(crate) fn files(&self) -> &[ServerFile] {
        &self.files
    }

    pub(crate) fn deployment(&self) -> Deployment {
        self.deployment
    }

    pub(crate) fn storage(&self) -> Storage {
        self.storage
    }

    /// The command line of a server with its data in one folder and its files in another.
    pub(crate) fn command_line(
        &self,
        bind_ip: &str,
        port: u16,
        data: &str,
        files: &str,
    ) -> Vec<String> {
        let port = port.to_string();
        let cache = match self.storage {
            Storage::Memory => "0.5",
            // The least that mongod allows.
            Storage::Disk => "0.25",
        };
        let own = [
            ["--bind_ip", bind_ip],
            ["--port", &port],
            ["--dbpath", data],
            // Several servers share a machine.
            ["--wiredTigerCacheSizeGB", cache],
            ["--oplogSize", "256"],
            // Fail points.
            ["--setParameter", "enableTestCommands=1"],
            ["--setParameter", "diagnosticDataCollectionEnabled=false"],
        ];
        let set: &[&str] = match self.deployment {
            Deployment::ReplicaSet | Deployment::Uninitiated => &["--replSet", replica_set::NAME],
            Deployment::Standalone => &[],
        };
        let own = own.as_flattened().iter().chain(set);
        let own = own.map(|it| (*it).to_owned());
        let added = self.arguments.iter().map(|argument| {
            self.files.iter().fold(argument.clone(), |text, file| {
                let path = format!("{files}/{}", file.name);
                text.replace(&format!("{{{}}}", file.name), &path)
            })
        });
        // A killed server would leave its socket in /tmp.
        let no_socket = ["--nounixsocket".to_owned()];
        own.chain(no_socket).chain(added).collect()
    }

    /// The URI with all rights.
    pub(crate) fn admin_uri(&self, address: &str) -> String {
        let Some(key) = &self.key else {
            return plain_uri(address);
        };
        // As this user, members log in to each other. It exists before any other user.
        format!(
            "mongodb://__system:{key}@{address}/?directConnection=true\
             &authSource=local&authMechanism=SCRAM-SHA-256"
        )
    }
}

/// The URI of one server. Direct, because the server's own name for itself need not be
/// reachable from here.
pub(crate) fn plain_uri(address: &str) -> String {
    format!("mongodb://{address}/?directConnection=true")
}
