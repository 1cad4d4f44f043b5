//! Commands on a queue's collection.

pub(crate) mod duplicate;
pub(crate) mod insert;
pub(crate) mod set_aside;
pub(crate) mod write;
pub(crate) mod write_reply;
