//! What an instance remembers about queues. It could find all of it out again.

pub(crate) mod contention;
pub(crate) mod cursor;
pub(crate) mod entry_cache;
pub(crate) mod knowledge;
pub(crate) mod locked;
pub(crate) mod queues;
pub(crate) mod recent;
pub(crate) mod shared_poll;
pub(crate) mod sizes;
