//! Entries that an open transaction has locked. A claim that writes one waits until the transaction ends.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use mongodb::bson::Uuid;
use tokio::time::Instant;

use crate::lock::lock;

/// How long claims pass over an entry that could not be written in time.
const PASS_OVER: Duration = Duration::from_secs(5);

/// How long claims pass over entries at most, one after the other. Meanwhile they are given up soon, so a slow
/// server looks like a lock. A transaction ends after a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// Entries that claims of this instance pass over.
#[derive(Debug, Default)]
pub(crate) struct Locked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the first one was added, while there are some.
    began: Option<Instant>,
    /// Each with the time until which it is skipped.
    entries: Vec<(Instant, Uuid)>,
}

impl Locked {
    pub(crate) fn add(&self, entry: Uuid) {
        let mut state = self.state();
        let now = Instant::now();
        let began = *state.began.get_or_insert(now);
        let until = (now + PASS_OVER).min(began + LONGEST);
        state.entries.push((until, entry));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state().entries.is_empty()
    }

    /// When the first of them is no longer passed over.
    pub(crate) fn next_return(&self) -> Option<Instant> {
        self.state().entries.iter().map(|(until, _)| *until).min()
    }

    pub(crate) fn entries(&self) -> Vec<Uuid> {
        self.state()
            .entries
            .iter()
            .map(|(_, entry)| *entry)
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0);
        let now = Instant::now();
        state.entries.retain(|(until, _)| now < *until);
        if state.entries.is_empty() {
            state.began = None;
        }
        state
    }
}
