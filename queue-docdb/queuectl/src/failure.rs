//! Errors as the user sees them, and the exit code of each.

use std::{io, process::ExitCode};

use queue_api::ErrorKind;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The exit codes. Scripts depend on them: README.md lists them, and they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Any other reason.
    Failed = 1,
    /// A flag, an argument, a setting, or a profile. This is clap's own code for it.
    Usage = 2,
    /// A queue or a message does not exist.
    NotFound = 3,
    /// The database did not answer.
    Unreachable = 4,
    /// The database refused the credentials or the permission.
    Denied = 5,
    /// The user did not agree.
    NotConfirmed = 6,
    /// A line or a file of the input is not valid.
    BadInput = 7,
    /// As shells report SIGINT.
    Interrupted = 130,
    /// As shells report SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// That a signal stopped the command.
    pub(crate) fn stopped(self) -> Failure {
        let signal = match self {
            Self::Terminated => "SIGTERM",
            _ => "SIGINT",
        };
        Failure::new(self, format!("stopped by {signal}"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended, in words for the user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Empty if there is nothing to say.
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exit, text }
    }

    /// Adds how to go on.
    pub(crate) fn advise(self, advice: &str) -> Self {
        let text = format!("{}; {advice}", self.text);
        Self { text, ..self }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }
}

impl From<queue_api::Error> for Failure {
    fn from(error: queue_api::Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::InvalidInput => Exit::Usage,
            ErrorKind::Unavailable | ErrorKind::TimedOut => Exit::Unreachable,
            ErrorKind::Denied => Exit::Denied,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("{error:#}"))
    }
}

/// An error of the standard output. A reader that has seen enough, such as `head`, is not an error.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Failed, ""),
            _ => Self::new(Exit::Failed, format!("cannot write the output: {error}")),
        }
    }
}
