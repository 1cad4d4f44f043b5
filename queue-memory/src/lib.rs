#![doc = include_str!("../README.md")]

mod admin;
mod backend;
mod clock;
mod message;
mod queue;

pub use backend::MemoryBackend;
