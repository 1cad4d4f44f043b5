//! A server as a process of this machine.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::error::StepError;
use crate::options::ServerOptions;
use crate::reaper::ProcessReaper;
use crate::replica_set::{PORT_TAKEN, Server, last_lines};

const PORT_ATTEMPTS: usize = 5;
const DATA: &str = "data";
const FILES: &str = "files";

/// A `mongod` process with its folder. Dropping it removes both.
#[derive(Debug)]
pub(crate) struct Process {
    folder: PathBuf,
    port: u16,
    /// A std mutex: nothing awaits while it is locked.
    reaper: Mutex<ProcessReaper>,
}

/// Starts servers again while another program takes a port between its choice and its use.
pub(crate) async fn retry_ports<T>(
    start: impl AsyncFn() -> Result<T, StepError>,
) -> Result<T, StepError> {
    for _ in 1..PORT_ATTEMPTS {
        match start().await {
            Err(failure) if failure.to_string().contains(PORT_TAKEN) => {}
            result => return result,
        }
    }
    start().await
}

impl Process {
    /// Starts a process. It may not listen yet.
    pub(crate) fn start(program: &Path, options: &ServerOptions) -> Result<Self, StepError> {
        let (folder, port) =
            prepare(options).map_err(|error| StepError::of("preparing folder and port", &error))?;
        let path = folder.path().display();
        let (data, files) = (format!("{path}/{DATA}"), format!("{path}/{FILES}"));
        let arguments = options.command_line("127.0.0.1", port, &data, &files);
        let reaper = ProcessReaper::start(folder.path(), program, &arguments)?;
        Ok(Self {
            // The reaper removes it.
            folder: folder.keep(),
            port,
            reaper: Mutex::new(reaper),
        })
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The `--dbpath`, which no other server has.
    pub(crate) fn data_path(&self) -> String {
        format!("{}/{DATA}", self.folder.display())
    }

    /// Sends a line to the [reaper](ProcessReaper::send); says whether the server runs then.
    pub(crate) fn send(&self, line: &str) -> Result<bool, StepError> {
        let mut reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        reaper.send(line)
    }

    /// Kills the server and removes its folder.
    pub(crate) fn remove(self) -> Result<(), StepError> {
        drop(self.reaper);
        if self.folder.exists() {
            let folder = self.folder.display();
            return Err(StepError::new(format!("{folder} could not be removed")));
        }
        Ok(())
    }
}

impl Server for Process {
    async fn output_if_ended(&self) -> Option<String> {
        if let Ok(true) = self.send("state") {
            return None;
        }
        let output = fs::read(self.folder.join("output")).unwrap_or_default();
        Some(last_lines(&output))
    }
}

/// A folder with the server's files, and a port that is free now.
fn prepare(options: &ServerOptions) -> io::Result<(TempDir, u16)> {
    let folder = TempDir::with_prefix(concat!(env!("CARGO_PKG_NAME"), "-"))?;
    fs::create_dir(folder.path().join(DATA))?;
    let files = folder.path().join(FILES);
    fs::create_dir(&files)?;
    for file in options.files() {
        let path = files.join(&file.name);
        fs::write(&path, &file.bytes)?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode))?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((folder, listener.local_addr()?.port()))
}
