//! What a queue's documents mean.

pub(crate) mod encoding;
pub(crate) mod entry;
pub(crate) mod fields;
pub(crate) mod instant;
pub(crate) mod receipt;
