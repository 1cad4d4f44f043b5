//! What a dedicated server is started with.

use std::path::Path;

use uuid::Uuid;

/// The name of the replica set whose only member each started server is.
pub(crate) const REPLICA_SET: &str = "rs0";

/// The key file of a server with access control, as a [`ServerFile::name`].
const KEY_FILE: &str = "key-file";

/// What a dedicated server is started with: further arguments, files, access control.
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
    data: DataFolder,
    cache: Cache,
}

/// A file beside the server.
#[derive(Debug, Clone)]
pub(crate) struct ServerFile {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// Where a container keeps its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum DataFolder {
    #[default]
    Memory,
    Disk,
}

/// How much a server keeps in memory; small, because several servers share a machine.
#[derive(Debug, Clone, Copy, Default)]
enum Cache {
    #[default]
    Alone,
    OneOfThree,
}

impl Cache {
    fn gigabytes(self) -> &'static str {
        match self {
            Self::Alone => "0.5",
            // The least that mongod takes.
            Self::OneOfThree => "0.25",
        }
    }
}

impl ServerOptions {
    /// A member of a replica set of three, whose data outlive its process.
    pub(crate) fn member() -> Self {
        let mut options = Self::new().with_data_on_disk();
        options.cache = Cache::OneOfThree;
        // When it is told to stop, it steps down and then answers for so long that it does
        // not take commands any more; 15 s, unless told otherwise.
        options.with_arguments([
            "--setParameter",
            "shutdownTimeoutMillisForSignaledShutdown=500",
            // How long beyond what it asked for a secondary waits for the one that it copies
            // from, before it looks for another; 5 s, unless told otherwise, and then again
            // for a second attempt. Nothing has a majority meanwhile.
            "--setParameter",
            "oplogNetworkTimeoutBufferSeconds=1",
        ])
    }

    /// A server like the one [`MongoServer::start`](crate::MongoServer::start) starts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds arguments for `mongod`.
    ///
    /// They follow the ones every server is started with, and cannot repeat them:
    /// `--dbpath`, `--bind_ip`, `--port`, `--replSet`, `--oplogSize`,
    /// `--wiredTigerCacheSizeGB`, `--nounixsocket`. `{name}` stands for the path of the
    /// file that [`with_file`](Self::with_file) adds under that name.
    ///
    /// The server must still accept connections without TLS (so `preferTLS`, not
    /// `requireTLS`), because it is made a replica set over one.
    pub fn with_arguments<A: Into<String>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Puts a file beside the server, owned by the user the server runs as.
    ///
    /// # Panics
    /// When the name is empty or not a plain file name.
    pub fn with_file(
        mut self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        mode: u32,
    ) -> Self {
        let name = name.into();
        assert!(
            Path::new(&name).file_name() == Some(name.as_ref()),
            "a server's file needs a plain file name, not {name:?}"
        );
        self.files.push(ServerFile {
            name,
            bytes: bytes.into(),
            mode,
        });
        self
    }

    /// Makes clients log in, through a key file with a random key.
    ///
    /// Nobody can log in but the owner of the key, as whom
    /// [`MongoServer::admin_uri`](crate::MongoServer::admin_uri) connects; users are
    /// created with it.
    pub fn with_access_control(mut self) -> Self {
        if self.key.is_none() {
            // Hexadecimal digits are valid in a key file (which takes base64) and need no
            // escape in a URI.
            let key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            self.key = Some(key.clone());
            // mongod refuses a key file that others may read.
            return self
                .with_file(KEY_FILE, key, 0o400)
                .with_arguments(["--keyFile".to_owned(), format!("{{{KEY_FILE}}}")])
                // Or a process would trust whoever comes over loopback as long as there
                // is no user, and a container, where nobody does, would not.
                .with_arguments(["--setParameter", "enableLocalhostAuthBypass=false"]);
        }
        self
    }

    /// Keeps a container's data on disk; without this, they are in memory.
    ///
    /// For tests with more data than memory, or that measure the disk. A `mongod`
    /// without a container keeps its data in a temporary folder in any case.
    pub fn with_data_on_disk(mut self) -> Self {
        self.data = DataFolder::Disk;
        self
    }

    pub(crate) fn files(&self) -> &[ServerFile] {
        &self.files
    }

    pub(crate) fn data(&self) -> DataFolder {
        self.data
    }

    /// The complete command line, for a server that listens on `bind_ip` and `port`,
    /// with its data in one folder and its files in another.
    pub(crate) fn command_line(
        &self,
        bind_ip: &str,
        port: u16,
        data: &str,
        files: &str,
    ) -> Vec<String> {
        let port = port.to_string();
        let mut line: Vec<String> = [
            ["--bind_ip", bind_ip],
            ["--port", &port],
            ["--dbpath", data],
            ["--replSet", REPLICA_SET],
            ["--wiredTigerCacheSizeGB", self.cache.gigabytes()],
            // Ample for tests, and does not fill a data folder that is in memory.
            ["--oplogSize", "256"],
            // Fail points, with which tests make the server fail.
            ["--setParameter", "enableTestCommands=1"],
            // Nobody reads the diagnostics of a server that is gone in a minute.
            ["--setParameter", "diagnosticDataCollectionEnabled=false"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        // A killed server would leave its socket in /tmp.
        line.push("--nounixsocket".to_owned());
        line.extend(self.arguments.iter().map(|argument| {
            self.files.iter().fold(argument.clone(), |text, file| {
                let path = format!("{files}/{}", file.name);
                text.replace(&format!("{{{}}}", file.name), &path)
            })
        }));
        line
    }

    /// How to connect to the server at this address with every right.
    pub(crate) fn admin_uri(&self, address: &str) -> String {
        let Some(key) = &self.key else {
            return plain_uri(address);
        };
        // Members of a replica set log in to each other as this user, whose password is
        // the key. It exists before any user does.
        format!(
            "mongodb://__system:{key}@{address}/?directConnection=true\
             &authSource=local&authMechanism=SCRAM-SHA-256"
        )
    }
}

/// How to connect to the server at this address, with no rights where it has access
/// control. Direct, because the member's name in the replica set is its own view of
/// itself and need not be reachable for us.
pub(crate) fn plain_uri(address: &str) -> String {
    format!("mongodb://{address}/?directConnection=true")
}
