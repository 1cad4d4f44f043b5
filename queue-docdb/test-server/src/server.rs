//! A server as tests see it.

use std::sync::OnceLock;

use tokio::sync::watch;
use uuid::Uuid;

use crate::database::ScratchDatabase;
use crate::error::{StartError, StopError};
use crate::options::ServerOptions;
use crate::running::Running;
use crate::search::Found;
use crate::source::Source;
use crate::{apart, replica_set, search};

/// A MongoDB for tests: the primary of a replica set with one member.
///
/// Dropping it takes the server down and waits until it is gone; so does the end of the
/// process, in whatever way, without the waiting. A server that somebody else runs is
/// left alone.
///
/// A drop blocks its thread for a fraction of a second; [`stop`](Self::stop) does not.
#[derive(Debug)]
pub struct MongoServer {
    source: Source,
    uri: String,
    admin_uri: String,
    /// Only `None` once the server is being taken down.
    running: Option<Running>,
}

impl MongoServer {
    /// Finds or starts a server, trying in this order: the server that
    /// `QUEUE_TEST_MONGODB_URI` names, a container, the `mongod` on the `PATH`, a fetched
    /// `mongod`. One line on stderr says which it was.
    ///
    /// Works on any tokio runtime, also with a paused clock.
    ///
    /// # Errors
    /// When there is no server in any of the four ways; what was started on the way is
    /// gone again. When `QUEUE_TEST_MONGODB_URI` is set, that server is the only one
    /// that is tried.
    pub async fn start() -> Result<Self, StartError> {
        apart::run(async { search::any().await.map(Self::new) }).await
    }

    /// Starts a server for one test alone, with arguments and files of its own: a
    /// container, else a `mongod` on the `PATH`, else a fetched one.
    ///
    /// # Errors
    /// When no server could be started, as for [`start`](Self::start); a refused argument
    /// shows in the words of `mongod`.
    pub async fn start_dedicated(options: ServerOptions) -> Result<Self, StartError> {
        apart::run(async move { search::dedicated(&options).await.map(Self::new) }).await
    }

    /// The one server that all tests of a process share, [started](Self::start) by
    /// whoever asks first. It lives as long as the process does.
    ///
    /// # Errors
    /// As for [`start`](Self::start); it is not tried again in this process.
    pub async fn shared() -> Result<&'static Self, StartError> {
        type Shared = watch::Receiver<Option<Result<&'static MongoServer, StartError>>>;
        static SHARED: OnceLock<Shared> = OnceLock::new();
        let mut shared = SHARED
            .get_or_init(|| {
                let (sender, receiver) = watch::channel(None);
                // Not in the task of whoever asks first: its test may be over, and its
                // runtime gone, while the others still wait.
                apart::spawn(async move {
                    let server = search::any().await.map(Self::new);
                    let forever = server.map(|server| &*Box::leak(Box::new(server)));
                    sender.send_replace(Some(forever));
                });
                receiver
            })
            .clone();
        let started = shared
            .wait_for(Option::is_some)
            .await
            .expect("starting the shared server panicked");
        started.clone().expect("waited for it")
    }

    /// How to connect: `mongodb://127.0.0.1:<port>/?directConnection=true`, or what
    /// `QUEUE_TEST_MONGODB_URI` says.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// How to connect with every right, also where there is
    /// [access control](ServerOptions::with_access_control); without it, the same as
    /// [`uri`](Self::uri).
    #[must_use]
    pub fn admin_uri(&self) -> &str {
        &self.admin_uri
    }

    /// Where the server comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// A name for a database that nobody has used: `test_` and 32 hexadecimal digits, 37
    /// bytes, within the limit of 38 that old versions have.
    #[must_use]
    pub fn fresh_database_name(&self) -> String {
        format!("test_{}", Uuid::now_v7().simple())
    }

    /// A fresh database that is dropped with the returned guard.
    #[must_use]
    pub fn scratch_database(&self) -> ScratchDatabase {
        ScratchDatabase::new(self.fresh_database_name(), &self.admin_uri)
    }

    /// Drops a database; one that does not exist is dropped already.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses; the database may still exist.
    pub async fn drop_database(&self, name: &str) -> Result<(), StopError> {
        let (uri, name) = (self.admin_uri.clone(), name.to_owned());
        apart::run(async move { replica_set::drop_database(&uri, &name).await })
            .await
            .map_err(|failure| StopError { failure })
    }

    /// Takes the server down and returns when it is gone: no process, no container, no
    /// folder. Somebody else's server is left alone.
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn stop(mut self) -> Result<(), StopError> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        apart::run(running.shut_down())
            .await
            .map_err(|failure| StopError { failure })
    }

    fn new(found: Found) -> Self {
        found.source.announce();
        Self {
            source: found.source,
            uri: found.uri,
            admin_uri: found.admin_uri,
            running: Some(found.running),
        }
    }
}

impl Drop for MongoServer {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        if let Err(failure) = apart::block(running.shut_down()) {
            // A panic here would abort a test that is failing already.
            eprintln!("MongoDB for tests: {failure}");
        }
    }
}
