//! What an instance remembers about queues. It could find all of it out again.

pub(crate) mod contention;
pub(crate) mod cursor;
pub(crate) mod held;
pub(crate) mod knowledge;
pub(crate) mod queues;
pub(crate) mod seen;
pub(crate) mod shared_poll;
pub(crate) mod sizes;
