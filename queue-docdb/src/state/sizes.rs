//! How many messages entries have, to know how many of them a claim needs.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::document::encoding::Stored;

/// The average number of live messages of the entries that the last claim found.
#[derive(Debug)]
pub(crate) struct Sizes(AtomicUsize);

impl Default for Sizes {
    fn default() -> Self {
        Self(AtomicUsize::new(1))
    }
}

impl Sizes {
    /// How many entries have so many messages, probably.
    pub(crate) fn entries(&self, messages: usize) -> usize {
        messages.div_ceil(self.0.load(Ordering::Relaxed)).max(1)
    }

    pub(crate) fn saw(&self, found: &[Stored]) {
        let messages: usize = found.iter().map(|stored| stored.ids.len()).sum();
        if let Some(average) = messages.checked_div(found.len()) {
            self.0.store(average.max(1), Ordering::Relaxed);
        }
    }
}
