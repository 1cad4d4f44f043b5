//! Where a server comes from, and the line that says so.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;

/// The variable that names a server to use instead of starting one.
pub(crate) const URI_VARIABLE: &str = "QUEUE_TEST_MONGODB_URI";

/// Where a [`MongoServer`](crate::MongoServer) comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Somebody else's server, named by `QUEUE_TEST_MONGODB_URI`.
    External,
    /// A container that this process started.
    #[non_exhaustive]
    Container {
        /// The image with its tag.
        image: String,
        /// The container's name.
        name: String,
    },
    /// A process of the `mongod` found on the `PATH`.
    #[non_exhaustive]
    OnPath {
        /// The program.
        program: PathBuf,
    },
    /// A process of the `mongod` that was fetched from PyPI.
    #[non_exhaustive]
    Fetched {
        /// The program, in the user's cache.
        program: PathBuf,
    },
}

impl Source {
    /// Says once per process and kind of source which MongoDB is in use.
    ///
    /// Written past the capture of the test harness: which server a test ran against
    /// is worth knowing when it passed, too.
    pub(crate) fn announce(&self) {
        static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let kind = match self {
            Self::Container { image, .. } => format!("container of {image}"),
            other => other.to_string(),
        };
        // A poisoned lock means a panic while writing a line; the set is still good.
        let mut said = SAID.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if said.insert(kind.clone()) {
            // A closed stderr is no reason to have no server.
            let _ = writeln!(std::io::stderr(), "MongoDB for tests: {kind}");
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Not the URI itself: it may hold a password.
            Self::External => write!(f, "the server named by {URI_VARIABLE}"),
            Self::Container { image, name } => write!(f, "container {name} of {image}"),
            Self::OnPath { program } => write!(f, "{} from the PATH", program.display()),
            Self::Fetched { program } => write!(f, "{}, fetched from PyPI", program.display()),
        }
    }
}
