//! A database for one test.

use crate::{dedicated_runtime, replica_set};

/// A database for one test. Dropping this drops the database.
///
/// If the process is killed, the database stays on a server that
/// `QUEUE_TEST_MONGODB_URI` names.
#[derive(Debug)]
pub struct ScratchDatabase {
    pub(crate) name: String,
    pub(crate) admin_uri: String,
}

impl ScratchDatabase {
    /// The database's name, at most 38 bytes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for ScratchDatabase {
    fn drop(&mut self) {
        let uri = std::mem::take(&mut self.admin_uri);
        let name = std::mem::take(&mut self.name);
        let dropped =
            dedicated_runtime::block(async move || replica_set::drop_database(&uri, &name).await);
        if let Err(failure) = dropped {
            // A panic would abort a test that fails already. The server may be stopped.
            eprintln!("MongoDB for tests: {failure}");
        }
    }
}
