//! Commands on a queue's collection, and what their answers mean.

pub(crate) mod clock;
pub(crate) mod codes;
pub(crate) mod collection;
pub(crate) mod driver_error;
pub(crate) mod duplicate;
pub(crate) mod error;
pub(crate) mod index;
pub(crate) mod insert;
pub(crate) mod inspect;
pub(crate) mod monotonic;
pub(crate) mod pause;
pub(crate) mod prepare;
pub(crate) mod retry;
pub(crate) mod set_aside;
pub(crate) mod write;
pub(crate) mod write_reply;
pub(crate) mod written;
