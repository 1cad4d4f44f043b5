//! Where a server comes from.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The variable that names a server to use.
pub(crate) const URI_VARIABLE: &str = "QUEUE_TEST_MONGODB_URI";

/// Where a server comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// `QUEUE_TEST_MONGODB_URI` names it. It is not started and not stopped.
    External,
    /// A container that this process started.
    #[non_exhaustive]
    Container {
        /// The image with its tag.
        image: String,
        /// The container's name.
        name: String,
    },
    /// A `mongod` that this process started.
    #[non_exhaustive]
    Process {
        /// The program, on the `PATH` or in the user's cache.
        program: PathBuf,
    },
}

impl Source {
    /// Prints the source, once per process. Not captured by the test harness: it matters for
    /// tests that pass, too.
    pub(crate) fn announce(&self) {
        static ANNOUNCED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let text = match self {
            Self::Container { image, .. } => format!("container of {image}"),
            other => other.to_string(),
        };
        let mut announced = ANNOUNCED.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.insert(text.clone()) {
            // A closed stderr must not fail the test.
            let _ = writeln!(std::io::stderr(), "MongoDB for tests: {text}");
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Not the URI: it may hold a password.
            Self::External => write!(f, "the server named by {URI_VARIABLE}"),
            Self::Container { image, name } => write!(f, "container {name} of {image}"),
            Self::Process { program } => write!(f, "process of {}", program.display()),
        }
    }
}
