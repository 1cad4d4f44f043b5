//! A database that goes with its guard.

use crate::{apart, replica_set};

/// A database of its own for one test; dropping this drops the database.
///
/// A process that is killed drops nothing, which leaves a database named `test_` and
/// a random number on a server that is not ours.
#[derive(Debug)]
pub struct ScratchDatabase {
    name: String,
    admin_uri: String,
}

impl ScratchDatabase {
    pub(crate) fn new(name: String, admin_uri: &str) -> Self {
        Self {
            name,
            admin_uri: admin_uri.to_owned(),
        }
    }

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
        let dropped = apart::block(async move { replica_set::drop_database(&uri, &name).await });
        if let Err(failure) = dropped {
            // The server may have been stopped before, and its databases with it. A
            // panic here would abort a test that is failing already.
            eprintln!("MongoDB for tests: {failure}");
        }
    }
}
