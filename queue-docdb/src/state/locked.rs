//! Entries that an open transaction has locked. A claim that writes one waits until the transaction ends.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use mongodb::bson::Uuid;
use tokio::time::Instant;

use crate::lock::lock;

/// How long claims pass over entries after one could not be written in time.
const PASS_OVER: Duration = Duration::from_secs(5);

/// Entries that claims of this instance pass over.
#[derive(Debug, Default)]
pub(crate) struct Locked {
    /// Each with the time until which it is skipped.
    entries: Mutex<Vec<(Instant, Uuid)>>,
}

impl Locked {
    pub(crate) fn add(&self, entry: Uuid) {
        let mut entries = self.lock();
        // Claims beside locked entries are given up soon, so a slow server looks like a lock. That must not
        // go on for ever.
        let until = entries.first().map(|(until, _)| *until);
        entries.push((until.unwrap_or_else(|| Instant::now() + PASS_OVER), entry));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// When the first of them is no longer passed over.
    pub(crate) fn next_return(&self) -> Option<Instant> {
        self.lock().iter().map(|(until, _)| *until).min()
    }

    pub(crate) fn entries(&self) -> Vec<Uuid> {
        self.lock().iter().map(|(_, entry)| *entry).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Uuid)>> {
        let mut entries = lock(&self.entries);
        let now = Instant::now();
        entries.retain(|(until, _)| now < *until);
        entries
    }
}
