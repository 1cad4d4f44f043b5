//! The crate's promises: each way to a server works, and nothing stays behind.

mod choice;
mod cleanup;
mod gate;
mod program;
mod server;
