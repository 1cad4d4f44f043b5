#![doc = include_str!("../README.md")]

mod admin;
mod backend;
mod line;
mod message;
mod messages;
mod receipt;
mod state;

pub use backend::MemoryBackend;
