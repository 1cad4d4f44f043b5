//! Servers held by a process of their own, which can end in any way.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::doc;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::core::client::docker_client_instance;

/// The crate's program, which holds a server.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mongodb-test-server"))
}

/// The same as a terminal starts it. Tests that a shell without job control runs in the background
/// ignore interrupts, and what they start inherits that.
pub(crate) fn interruptible_program() -> Command {
    if !ignores_interrupts() {
        return program();
    }
    let mut command = Command::new("/usr/bin/env");
    command
        .arg("--default-signal=INT")
        .arg(program().get_program());
    command
}

/// Only Linux tells, by a bit for each signal, from 1.
fn ignores_interrupts() -> bool {
    const INTERRUPT: u64 = 1 << (2 - 1);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.is_some_and(|bits| bits & INTERRUPT != 0)
}

/// Leaves a program without Docker and without a `mongod` on the `PATH`.
pub(crate) fn without_docker(command: &mut Command) -> &mut Command {
    let path = env::var_os("PATH").expect("there is a PATH");
    let folders = env::split_paths(&path).filter(|folder| !folder.join("mongod").exists());
    command
        .env("PATH", env::join_paths(folders).expect("split from a path"))
        .env("DOCKER_HOST", "unix:///nowhere.sock")
        .env_remove("QUEUE_TEST_MONGODB_URI")
}

/// A process that holds a server until its stdin ends.
pub(crate) struct Held {
    pub(crate) process: Child,
    pub(crate) uri: String,
    pub(crate) source: String,
    stdin: Option<ChildStdin>,
}

impl Held {
    /// Starts the process and waits until it has a server.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a terminal does for a foreground job.
            .process_group(0)
            .spawn()
            .expect("the program starts");
        let stdin = process.stdin.take();
        let mut lines = BufReader::new(process.stdout.take().expect("is piped")).lines();
        let mut line = || {
            lines
                .next()
                .expect("a server is had")
                .expect("a line of text")
        };
        let (uri, source) = (line(), line());
        Self {
            process,
            uri,
            source,
            stdin,
        }
    }

    /// Ends the process's stdin, and so its holding.
    pub(crate) fn let_go(&mut self) {
        drop(self.stdin.take());
    }

    /// What there is while the server runs.
    pub(crate) async fn traces(&self) -> Traces {
        Traces::of(&self.uri, &self.source).await
    }
}

/// What there is of a server while it runs, and must not be there after.
#[derive(Debug)]
pub(crate) struct Traces {
    address: String,
    container: Option<String>,
    folder: Option<PathBuf>,
}

impl Traces {
    pub(crate) async fn of(uri: &str, source: &str) -> Self {
        let address = uri
            .split("//")
            .nth(1)
            .and_then(|rest| rest.split('/').next())
            .expect("a URI has an address");
        let container = source
            .strip_prefix("container ")
            .and_then(|rest| rest.split(' ').next())
            .map(str::to_owned);
        let folder = match &container {
            Some(_) => None,
            None => Some(folder(uri).await),
        };
        let traces = Self {
            address: address.to_owned(),
            container,
            folder,
        };
        assert!(
            traces.any_left().await,
            "looked in the wrong place: {traces:?}"
        );
        traces
    }

    /// Polls until nothing is left.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing tells when somebody else's work is done"
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

    pub(crate) async fn any_left(&self) -> bool {
        let container = match &self.container {
            Some(name) => container_exists(name).await,
            None => false,
        };
        let folder = self
            .folder
            .as_ref()
            .is_some_and(|folder| folder.exists() || is_named_by_a_process(folder));
        let address: SocketAddr = self.address.parse().expect("is an address and a port");
        // What is at a container's own address when the container is gone is not ours to say.
        let answers = address.ip().is_loopback() && TcpStream::connect(address).is_ok();
        container || folder || answers
    }
}

/// The folder of a server that is a process of this machine.
async fn folder(uri: &str) -> PathBuf {
    let client = Client::with_uri_str(uri).await.expect("the URI is valid");
    let command = doc! { "getCmdLineOpts": 1 };
    let reply = client.database("admin").run_command(command).await;
    let reply = reply.expect("the server answers");
    let storage = reply
        .get_document("parsed")
        .and_then(|it| it.get_document("storage"));
    let data = storage
        .and_then(|it| it.get_str("dbPath"))
        .expect("has a path");
    Path::new(data).parent().expect("has a parent").to_owned()
}

async fn container_exists(name: &str) -> bool {
    let docker = docker_client_instance()
        .await
        .expect("there was a container");
    match docker.inspect_container(name, None).await {
        Ok(_) => true,
        Err(DockerError::DockerResponseServerError {
            status_code: 404, ..
        }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Whether a process runs with this folder in its command line: the server, or a leash
/// that has not finished. Without `/proc`, the server's port has to tell.
fn is_named_by_a_process(folder: &Path) -> bool {
    let folder = folder.to_str().expect("made of ASCII by us").to_owned();
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes
        .filter_map(|process| fs::read(process.ok()?.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(&folder))
}

/// A `PATH` on which this folder comes first.
pub(crate) fn path_with(folder: &Path) -> OsString {
    let path = env::var_os("PATH").expect("there is a PATH");
    let folders = [folder.to_owned()]
        .into_iter()
        .chain(env::split_paths(&path));
    env::join_paths(folders).expect("split from a path")
}
