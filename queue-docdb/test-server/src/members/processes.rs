//! Members as processes of this machine.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{MEMBERS, ReplicaSetOptions};
use crate::error::Failure;
use crate::leash::Leash;
use crate::options::{ServerOptions, plain_uri};
use crate::process::{DATA, FILES, LOG, PORT_ATTEMPTS, PORT_TAKEN, is_port_taken, prepare};
use crate::replica_set;
use crate::running::{LastWords, last_lines};
use crate::source::Source;

/// Three processes on ports of the loopback.
#[derive(Debug)]
pub(crate) struct Processes {
    members: Vec<Process>,
    pub(crate) source: Source,
}

#[derive(Debug)]
struct Process {
    folder: PathBuf,
    port: u16,
    /// A std mutex: words are told, and answered, without an await.
    leash: Mutex<Leash>,
}

/// Starts three servers that do not know of each other yet.
pub(crate) async fn start(
    source: Source,
    options: &ReplicaSetOptions,
) -> Result<Processes, Failure> {
    let (Source::OnPath { program } | Source::Fetched { program }) = &source else {
        unreachable!("{source} is not a program");
    };
    let mut attempt = 1;
    loop {
        let members: Result<Vec<_>, _> = (0..MEMBERS).map(|_| Process::spawn(program)).collect();
        let set = Processes {
            members: members?,
            source: source.clone(),
        };
        match set.await_answers().await {
            Err(failure) if is_port_taken(&failure) && attempt < PORT_ATTEMPTS => attempt += 1,
            Err(failure) => return Err(failure),
            Ok(()) => {
                super::initiate(options, &set.addresses()).await?;
                return Ok(set);
            }
        }
    }
}

impl Processes {
    pub(crate) fn addresses(&self) -> Vec<String> {
        let address = |process: &Process| format!("{}:{}", Ipv4Addr::LOCALHOST, process.port);
        self.members.iter().map(address).collect()
    }

    async fn await_answers(&self) -> Result<(), Failure> {
        for (address, process) in self.addresses().iter().zip(&self.members) {
            let uri = plain_uri(address);
            replica_set::await_answer(&uri, process).await?;
            // On a port that was free a moment ago, somebody else's server may answer.
            if Path::new(&replica_set::data_path(&uri).await?) != process.folder.join(DATA) {
                return Err(Failure::new(PORT_TAKEN));
            }
        }
        Ok(())
    }

    /// Carries out a word of the leash, and says whether the member runs afterwards.
    pub(crate) fn tell(&self, member: usize, word: &str) -> Result<bool, Failure> {
        self.members[member].tell(word)
    }

    /// Kills the servers, waits for their end, removes their folders.
    pub(crate) fn shut_down(self) -> Result<(), Failure> {
        for Process { folder, leash, .. } in self.members {
            drop(leash);
            if folder.exists() {
                let folder = folder.display();
                return Err(Failure::new(format!("{folder} could not be removed")));
            }
        }
        Ok(())
    }
}

impl Process {
    fn spawn(program: &Path) -> Result<Self, Failure> {
        let options = ServerOptions::member();
        let (folder, port) = prepare(&options)
            .map_err(|error| Failure::of("preparing a folder and a port", &error))?;
        let path = folder.path().display();
        let mut arguments = options.command_line(
            &Ipv4Addr::LOCALHOST.to_string(),
            port,
            &format!("{path}/{DATA}"),
            &format!("{path}/{FILES}"),
        );
        arguments.extend(["--logpath".to_owned(), format!("{path}/{LOG}")]);
        // A server that is started again goes on with its log.
        arguments.push("--logappend".to_owned());
        let leash = Leash::member(folder.path().as_os_str(), program.as_os_str(), &arguments)?;
        Ok(Self {
            // From here on the leash removes it.
            folder: folder.keep(),
            port,
            leash: Mutex::new(leash),
        })
    }

    fn tell(&self, word: &str) -> Result<bool, Failure> {
        self.leash
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .tell(word)
    }
}

impl LastWords for Process {
    async fn last_words(&self) -> Option<String> {
        if let Ok(true) = self.tell("ask") {
            return None;
        }
        let read = |file| fs::read(self.folder.join(file)).unwrap_or_default();
        Some(last_lines(&[read("output"), read(LOG)].concat()))
    }
}
