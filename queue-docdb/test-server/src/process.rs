//! A server as a process of this machine.

use std::env;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

use tempfile::TempDir;

use crate::error::Failure;
use crate::leash::Leash;
use crate::options::ServerOptions;
use crate::running::{Running, last_lines};
use crate::search::Found;
use crate::source::Source;

/// Between the choice of a free port and its use, somebody else may take it.
pub(crate) const PORT_ATTEMPTS: usize = 5;
/// What mongod says then.
pub(crate) const PORT_TAKEN: &str = "Address already in use";

pub(crate) const DATA: &str = "data";
pub(crate) const FILES: &str = "files";
pub(crate) const LOG: &str = "log";

/// A `mongod` whose end is certain.
#[derive(Debug)]
pub(crate) struct Process {
    folder: PathBuf,
    leash: Leash,
    /// What the server printed before it had a log; set when the server ends.
    output: Arc<OnceLock<Vec<u8>>>,
}

/// The `mongod` that a shell would run.
pub(crate) fn on_path() -> Result<PathBuf, Failure> {
    let path = env::var_os("PATH").ok_or_else(|| Failure::new("PATH is not set"))?;
    env::split_paths(&path)
        .map(|folder| folder.join("mongod"))
        .find(|program| {
            fs::metadata(program)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| Failure::new("there is none"))
}

/// Starts a process and makes it a replica set.
pub(crate) async fn start(source: Source, options: &ServerOptions) -> Result<Found, Failure> {
    let (Source::OnPath { program } | Source::Fetched { program }) = &source else {
        unreachable!("{source} is not a program");
    };
    let mut attempt = 1;
    loop {
        let (port, process) = Process::spawn(program, options)?;
        let running = Running::Process(process);
        let found = Found::server(source.clone(), port, port, options, running).await;
        match found {
            Err(failure) if is_port_taken(&failure) && attempt < PORT_ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

pub(crate) fn is_port_taken(failure: &Failure) -> bool {
    failure.to_string().contains(PORT_TAKEN)
}

impl Process {
    fn spawn(program: &Path, options: &ServerOptions) -> Result<(u16, Self), Failure> {
        let (folder, port) = prepare(options)
            .map_err(|error| Failure::of("preparing a folder and a port", &error))?;
        let path = folder.path().display();
        let mut arguments = options.command_line(
            &Ipv4Addr::LOCALHOST.to_string(),
            port,
            &format!("{path}/{DATA}"),
            &format!("{path}/{FILES}"),
        );
        arguments.extend(["--logpath".to_owned(), format!("{path}/{LOG}")]);
        let (leash, mut stdout) =
            Leash::process(folder.path().as_os_str(), program.as_os_str(), &arguments)?;
        let output = Arc::new(OnceLock::new());
        let end = Arc::clone(&output);
        thread::spawn(move || {
            let mut printed = Vec::new();
            // What was read before an error is still worth having.
            let _ = stdout.read_to_end(&mut printed);
            end.set(printed).expect("nobody else sets it");
        });
        let process = Self {
            // From here on the leash removes it.
            folder: folder.keep(),
            leash,
            output,
        };
        Ok((port, process))
    }

    /// What the server said last, if it has ended.
    pub(crate) fn last_words(&self) -> Option<String> {
        let output = self.output.get()?;
        let log = fs::read(self.folder.join(LOG)).unwrap_or_default();
        Some(last_lines(&[output.as_slice(), &log].concat()))
    }

    /// Checks that the server with this data path is this one.
    pub(crate) fn verify(&self, data_path: &str) -> Result<(), Failure> {
        if Path::new(data_path) == self.folder.join(DATA) {
            return Ok(());
        }
        Err(Failure::new(PORT_TAKEN))
    }

    /// Kills the server, waits for its end, removes its folder.
    pub(crate) fn shut_down(self) -> Result<(), Failure> {
        drop(self.leash);
        if self.folder.exists() {
            let folder = self.folder.display();
            return Err(Failure::new(format!("{folder} could not be removed")));
        }
        Ok(())
    }
}

/// A folder with the server's files, and a port that is free at this moment.
pub(crate) fn prepare(options: &ServerOptions) -> io::Result<(TempDir, u16)> {
    let folder = TempDir::with_prefix("mongodb-test-server-")?;
    fs::create_dir(folder.path().join(DATA))?;
    let files = folder.path().join(FILES);
    fs::create_dir(&files)?;
    for file in options.files() {
        let path = files.join(&file.name);
        fs::write(&path, &file.bytes)?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode))?;
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    Ok((folder, port))
}
