//! Members as processes of this machine.

use std::path::{Path, PathBuf};

use super::options::{Action, MEMBERS, ReplicaSetOptions};
use super::view;
use crate::error::{MemberError, StepError};
use crate::options::{ServerOptions, plain_uri};
use crate::process::{Process, retry_ports};
use crate::source::Source;
use crate::{mongod, replica_set};

/// Three processes on ports of the loopback.
#[derive(Debug)]
pub(crate) struct Processes {
    members: Vec<Process>,
    program: PathBuf,
}

pub(crate) async fn start(options: &ReplicaSetOptions) -> Result<Processes, StepError> {
    let program = mongod::find().await?;
    let members = retry_ports(async || start_members(&program).await).await?;
    let set = Processes { members, program };
    view::initiate(options, &set.addresses()).await?;
    Ok(set)
}

async fn start_members(program: &Path) -> Result<Vec<Process>, StepError> {
    let options = ServerOptions::member();
    let start = |_| Process::start(program, &options);
    let members: Vec<Process> = (0..MEMBERS).map(start).collect::<Result<_, _>>()?;
    for member in &members {
        let uri = plain_uri(&member.address());
        replica_set::await_answer(&uri, &member.data_path(), member).await?;
    }
    Ok(members)
}

impl Processes {
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.members.iter().map(Process::address).collect()
    }

    pub(crate) fn source(&self) -> Source {
        Source::Process {
            program: self.program.clone(),
        }
    }

    pub(crate) fn apply(&self, action: Action, member: usize) -> Result<(), MemberError> {
        let (line, runs) = match action {
            Action::Kill => ("kill", false),
            Action::Stop => ("stop", false),
            Action::Start => ("start", true),
            Action::Freeze => ("freeze", true),
            Action::Thaw => ("thaw", true),
            Action::Cut(_) | Action::Heal => return Err(MemberError::NeedsContainers),
        };
        if self.members[member].send(line)? == runs {
            return Ok(());
        }
        let state = if runs { "does not run" } else { "still runs" };
        Err(MemberError::Failed(format!(
            "member {member} {state} after {line}"
        )))
    }

    /// Kills the servers and removes their folders.
    pub(crate) fn remove(self) -> Result<(), StepError> {
        self.members.into_iter().try_for_each(Process::remove)
    }
}
