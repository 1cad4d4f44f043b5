//! What runs behind a server's address.

use std::future::Future;

use crate::container::Container;
use crate::error::Failure;
use crate::process::Process;

/// How many lines of a log an error carries.
const LAST_LINES: usize = 12;

/// What may end before it answers.
pub(crate) trait LastWords: Sync {
    /// What the server said last, if it has ended.
    fn last_words(&self) -> impl Future<Output = Option<String>> + Send;
}

/// What runs behind a server's address, and can be taken down.
#[derive(Debug)]
pub(crate) enum Running {
    /// Somebody else's server; not ours to take down.
    External,
    Container(Box<Container>),
    Process(Process),
}

impl LastWords for Running {
    async fn last_words(&self) -> Option<String> {
        match self {
            Self::External => None,
            Self::Container(container) => container.last_words().await,
            Self::Process(process) => process.last_words(),
        }
    }
}

impl Running {
    /// Checks that the server that answers, with its data at this path, is this one: on
    /// a port that was free a moment ago, somebody else's server may answer.
    pub(crate) fn verify(&self, data_path: &str) -> Result<(), Failure> {
        match self {
            Self::Process(process) => process.verify(data_path),
            // Docker gives a port to one container only.
            Self::External | Self::Container(_) => Ok(()),
        }
    }

    /// Takes the server down and removes what it left; done when it is gone.
    pub(crate) async fn shut_down(self) -> Result<(), Failure> {
        match self {
            Self::External => Ok(()),
            Self::Container(container) => container.shut_down().await,
            Self::Process(process) => process.shut_down(),
        }
    }
}

/// The end of a log, where the reason is.
pub(crate) fn last_lines(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
