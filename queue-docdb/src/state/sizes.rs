//! How many messages entries have, to know how many of them a call needs.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::document::encoding::Stored;

/// The average number of messages of the entries that the last call found.
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

    pub(crate) fn saw<'a>(&self, found: impl IntoIterator<Item = &'a Stored>) {
        let (mut messages, mut entries) = (0_usize, 0);
        for stored in found {
            messages += stored.ids.len();
            entries += 1;
        }
        if let Some(average) = messages.checked_div(entries) {
            self.0.store(average.max(1), Ordering::Relaxed);
        }
    }
}
