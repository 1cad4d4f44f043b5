//! What a queue's documents mean.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod entry;
pub(crate) mod fields;
pub(crate) mod receipt;
pub(crate) mod stored;
#[cfg(test)]
mod tests;
