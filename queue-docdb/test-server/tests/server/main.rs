//! The crate's promises: a server is found in each way, can be used, and leaves nothing.

mod dedicated;
mod endings;
mod gate;
mod held;
mod members;
mod server;
mod ways;
