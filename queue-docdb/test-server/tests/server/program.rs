//! The crate's program as a child process, and what it leaves behind.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::doc;
use testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;

/// The program, with this argument if it is not empty.
pub(crate) fn program(argument: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mongodb-test-server"));
    command.args([argument].iter().filter(|it| !it.is_empty()));
    command
}

/// The program without Docker and without a `mongod` on the `PATH`.
pub(crate) fn without_docker(mut command: Command) -> Command {
    let path = env::var_os("PATH").expect("there is a PATH");
    let folders = env::split_paths(&path).filter(|folder| !folder.join("mongod").exists());
    command
        .env("PATH", env::join_paths(folders).expect("split from a path"))
        .env("DOCKER_HOST", "unix:///nowhere.sock")
        .env_remove("QUEUE_TEST_MONGODB_URI");
    command
}

/// A `PATH` that starts with this folder.
pub(crate) fn path_with(folder: &Path) -> OsString {
    let path = env::var_os("PATH").expect("there is a PATH");
    let folders = [folder.to_owned()]
        .into_iter()
        .chain(env::split_paths(&path));
    env::join_paths(folders).expect("split from a path")
}

/// A program that has started its server.
pub(crate) struct Program {
    pub(crate) process: Child,
    pub(crate) uri: String,
    pub(crate) source: String,
    stdin: Option<ChildStdin>,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // As a terminal does for a foreground job.
            .process_group(0)
            .spawn()
            .expect("the program starts");
        let stdin = process.stdin.take();
        let mut lines = BufReader::new(process.stdout.take().expect("is piped")).lines();
        let mut line = || lines.next().expect("a server").expect("a line of text");
        let (uri, source) = (line(), line());
        Self {
            process,
            uri,
            source,
            stdin,
        }
    }

    /// Closes stdin, so that the program returns from `main`.
    pub(crate) fn finish(&mut self) {
        drop(self.stdin.take());
        assert!(self.process.wait().expect("is our child").success());
    }

    /// Everything that the program has started.
    pub(crate) async fn traces(&self) -> Traces {
        let name = self.source.strip_prefix("container ");
        let Some(name) = name.and_then(|it| it.split(' ').next()) else {
            return Traces::of_processes(&self.uri).await;
        };
        let docker = docker_client_instance().await.expect("a daemon");
        let container = docker.inspect_container(name, None).await;
        let labels = container.expect("a container").config.expect("a config");
        let labels = labels.labels.expect("labels");
        let label = format!("mongodb-test-server={}", labels["mongodb-test-server"]);
        Traces::of_docker("label", label).await
    }
}

/// What there is while servers run, and must not be there afterwards.
#[derive(Debug)]
pub(crate) enum Traces {
    /// Containers and networks that this filter finds.
    Docker(HashMap<String, Vec<String>>),
    /// The folders of processes.
    Folders(Vec<PathBuf>),
}

impl Traces {
    pub(crate) async fn of_docker(key: &str, value: String) -> Self {
        Self::Docker(HashMap::from([(key.to_owned(), vec![value])]))
            .checked()
            .await
    }

    pub(crate) async fn of_processes(uri: &str) -> Self {
        let addresses = uri.strip_prefix("mongodb://").expect("a URI");
        let addresses = addresses.split('/').next().expect("addresses");
        let mut folders = Vec::new();
        for address in addresses.split(',') {
            folders.push(folder(address).await);
        }
        Self::Folders(folders).checked().await
    }

    /// Traces that are not seen while the server runs would never be seen.
    async fn checked(self) -> Self {
        assert!(self.any_left().await, "{self:?}");
        self
    }

    pub(crate) async fn any_left(&self) -> bool {
        match self {
            Self::Folders(folders) => folders
                .iter()
                .any(|folder| folder.exists() || is_named_by_a_process(folder)),
            Self::Docker(filter) => {
                let docker = docker_client_instance().await.expect("a daemon");
                let options = ListContainersOptionsBuilder::new()
                    .all(true)
                    .filters(filter);
                let containers = docker.list_containers(Some(options.build())).await;
                let options = ListNetworksOptionsBuilder::new().filters(filter);
                let networks = docker.list_networks(Some(options.build())).await;
                !containers.expect("a list").is_empty() || !networks.expect("a list").is_empty()
            }
        }
    }

    /// Waits until nothing is left.
    #[expect(
        clippy::disallowed_methods,
        reason = "a reaper has no other way to say that it is done"
    )]
    pub(crate) async fn vanish(&self) {
        let vanished = async {
            while self.any_left().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), vanished)
            .await
            .unwrap_or_else(|_| panic!("still there: {self:?}"));
    }
}

/// The folder of a server process.
async fn folder(address: &str) -> PathBuf {
    let uri = format!("mongodb://{address}/?directConnection=true");
    let client = Client::with_uri_str(uri).await.expect("a valid URI");
    let command = doc! { "getCmdLineOpts": 1 };
    let reply = client.database("admin").run_command(command).await;
    let reply = reply.expect("an answer");
    let parsed = reply.get_document("parsed").expect("options");
    let storage = parsed.get_document("storage").expect("options");
    let data = Path::new(storage.get_str("dbPath").expect("a path"));
    data.parent().expect("a parent").to_owned()
}

/// Whether the command line of a process, a server's or a reaper's, has this folder.
fn is_named_by_a_process(folder: &Path) -> bool {
    let folder = folder.to_str().expect("is ASCII");
    fs::read_dir("/proc")
        .expect("Linux")
        .filter_map(|process| fs::read(process.ok()?.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(folder))
}
