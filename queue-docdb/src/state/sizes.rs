//! How large entries are, to know how many of them a call needs, and how many it may read.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::document::stored::Stored;

/// Averages over the entries that the last call found.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Sizes {
    /// How many entries have so many messages, probably.
    pub(crate) fn entries(&self, messages: usize) -> usize {
        messages.div_ceil(self.messages()).max(1)
    }

    /// How many entries have so many bytes of messages, probably.
    pub(crate) fn entries_of(&self, bytes: usize) -> usize {
        bytes / self.bytes.load(Relaxed).max(1)
    }

    /// The messages of an entry, probably.
    pub(crate) fn messages(&self) -> usize {
        self.messages.load(Relaxed).max(1)
    }

    pub(crate) fn saw<'a>(&self, found: impl IntoIterator<Item = &'a Stored>) {
        let (mut messages, mut bytes, mut entries) = (0_usize, 0_usize, 0);
        for stored in found {
            messages += stored.ids.len();
            bytes += stored.message_bytes();
            entries += 1;
        }
        if let Some(average) = messages.checked_div(entries) {
            self.messages.store(average, Relaxed);
            self.bytes.store(bytes / entries, Relaxed);
        }
    }
}
