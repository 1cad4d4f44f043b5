//! A server as tests see it.

use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::database::ScratchDatabase;
use crate::error::{StartError, StopError};
use crate::options::ServerOptions;
use crate::source::Source;
use crate::ways::{self, Ready, Running};
use crate::{dedicated_runtime, replica_set};

/// A MongoDB for tests: the primary of a replica set with one member.
///
/// Dropping it removes the server and blocks the thread until it is gone, for a fraction of a
/// second; [`stop`](Self::stop) does not block. If the process ends without a drop, the server
/// is removed, too. A server that `QUEUE_TEST_MONGODB_URI` names is left alone.
#[derive(Debug)]
pub struct MongoServer {
    source: Source,
    uri: String,
    admin_uri: String,
    /// `None` once it is being removed.
    running: Option<Running>,
}

impl MongoServer {
    /// Uses the server that `QUEUE_TEST_MONGODB_URI` names, or starts a container, or a
    /// `mongod` process. Prints one line on stderr that says which.
    ///
    /// Works on every tokio runtime, also with a paused clock.
    ///
    /// # Errors
    /// If no way works, with the reason for each. Nothing is left behind. If
    /// `QUEUE_TEST_MONGODB_URI` is set, the other ways are not tried.
    pub async fn start() -> Result<Self, StartError> {
        dedicated_runtime::run(async || ways::any().await.map(Self::new)).await
    }

    /// Starts a server for one test, with arguments and files of its own.
    ///
    /// # Errors
    /// If no server could be started. The text has the last lines of `mongod`'s output.
    pub async fn start_dedicated(options: ServerOptions) -> Result<Self, StartError> {
        dedicated_runtime::run(async move || ways::dedicated(&options).await.map(Self::new)).await
    }

    /// The server that all tests of a process share. The first call [starts](Self::start) it.
    /// It is removed when the process ends.
    ///
    /// # Errors
    /// As for [`start`](Self::start). Later calls return the same error.
    pub async fn shared() -> Result<&'static Self, StartError> {
        static SHARED: OnceCell<Result<MongoServer, StartError>> = OnceCell::const_new();
        let shared = SHARED.get_or_init(Self::start).await;
        shared.as_ref().map_err(Clone::clone)
    }

    /// The URI: `mongodb://127.0.0.1:<port>/?directConnection=true`, or the value of
    /// `QUEUE_TEST_MONGODB_URI`.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The URI with all rights. Differs from [`uri`](Self::uri) for a server with
    /// [access control](ServerOptions::with_access_control).
    #[must_use]
    pub fn admin_uri(&self) -> &str {
        &self.admin_uri
    }

    /// Where the server comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// A new database name: `test_` and 32 hexadecimal digits. Old servers allow 38 bytes.
    #[must_use]
    pub fn fresh_database_name(&self) -> String {
        format!("test_{}", Uuid::now_v7().simple())
    }

    /// A new database that is dropped with the returned guard.
    #[must_use]
    pub fn scratch_database(&self) -> ScratchDatabase {
        ScratchDatabase {
            name: self.fresh_database_name(),
            admin_uri: self.admin_uri.clone(),
        }
    }

    /// Drops a database, if it exists.
    ///
    /// # Errors
    /// If the server does not answer or refuses. The database may still exist.
    pub async fn drop_database(&self, name: &str) -> Result<(), StopError> {
        let (uri, name) = (self.admin_uri.clone(), name.to_owned());
        dedicated_runtime::run(async move || replica_set::drop_database(&uri, &name).await)
            .await
            .map_err(StopError)
    }

    /// Removes the server, and returns when it is gone.
    ///
    /// # Errors
    /// If something could not be removed.
    pub async fn stop(mut self) -> Result<(), StopError> {
        let running = self.running.take().expect("only stop and drop take it");
        dedicated_runtime::run(async || running.remove().await)
            .await
            .map_err(StopError)
    }

    fn new(ready: Ready) -> Self {
        ready.source.announce();
        Self {
            source: ready.source,
            uri: ready.uri,
            admin_uri: ready.admin_uri,
            running: Some(ready.running),
        }
    }
}

impl Drop for MongoServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && let Err(failure) = dedicated_runtime::block(async || running.remove().await)
        {
            // A panic would abort a test that fails already.
            eprintln!("MongoDB for tests: {failure}");
        }
    }
}
