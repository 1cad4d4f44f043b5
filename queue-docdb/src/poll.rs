//! The pauses between two looks at a queue that a wait polls.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// The pause after the first look that found nothing.
const FIRST: Duration = Duration::from_millis(50);

/// The longest pause. An idle consumer sends less than one command a second.
const LONGEST: Duration = Duration::from_secs(2);

/// How long to pause, by how often the queue was found empty. It outlives a wait, because a
/// consumer waits again and again.
#[derive(Debug, Default)]
pub(crate) struct PollInterval {
    empty_looks: AtomicU32,
}

impl PollInterval {
    pub(crate) fn reset(&self) {
        self.empty_looks.store(0, Ordering::Relaxed);
    }

    /// Twice as long each time.
    pub(crate) fn next(&self) -> Duration {
        let looks = self.empty_looks.fetch_add(1, Ordering::Relaxed).min(16);
        (FIRST * (1 << looks)).min(LONGEST)
    }
}
