//! Entries that an open transaction has locked. A claim that writes one waits until the transaction ends.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use mongodb::bson::Uuid;
use tokio::time::Instant;

use crate::lock::lock;

/// How long claims pass over entries after the last one that could not be written in time.
const PASS_OVER: Duration = Duration::from_secs(5);

/// How long they do at most. Meanwhile they are given up soon, so a slow server looks like a lock. A transaction
/// ends after a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// Entries that claims of this instance pass over.
#[derive(Debug, Default)]
pub(crate) struct Locked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the first entry was added, and until when all are passed over. `None` if there are none.
    time: Option<(Instant, Instant)>,
    entries: Vec<Uuid>,
}

impl Locked {
    pub(crate) fn add(&self, entry: Uuid) {
        let mut state = self.state();
        let now = Instant::now();
        let began = state.time.map_or(now, |(began, _)| began);
        // All of them: to find each again takes longer than to find the next.
        state.time = Some((began, (now + PASS_OVER).min(began + LONGEST)));
        state.entries.push(entry);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state().entries.is_empty()
    }

    /// When they are no longer passed over.
    pub(crate) fn next_return(&self) -> Option<Instant> {
        self.state().time.map(|(_, until)| until)
    }

    pub(crate) fn entries(&self) -> Vec<Uuid> {
        self.state().entries.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0);
        if state.time.is_some_and(|(_, until)| until <= Instant::now()) {
            *state = State::default();
        }
        state
    }
}
