//! The pauses between two polls of a queue.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// The pause after the first poll that found nothing.
const FIRST: Duration = Duration::from_millis(50);

/// The longest pause. An idle consumer sends less than one command a second.
const LONGEST: Duration = Duration::from_secs(2);

/// How long to pause, by how often the queue was found empty. It outlives a wait, because a
/// consumer waits again and again.
#[derive(Debug, Default)]
pub(crate) struct PollInterval {
    empty_polls: AtomicU32,
}

impl PollInterval {
    pub(crate) fn reset(&self) {
        self.empty_polls.store(0, Ordering::Relaxed);
    }

    /// Twice as long each time.
    pub(crate) fn next(&self) -> Duration {
        let polls = self.empty_polls.fetch_add(1, Ordering::Relaxed).min(16);
        (FIRST * (1 << polls)).min(LONGEST)
    }
}
