//! Managing queues: the contract for backends, the handle for applications.

mod contract;
mod handle;
mod stream;

pub use self::{
    contract::QueueAdmin,
    handle::Admin,
    stream::{DeadLetterStream, MessageStream, PageStream},
};
