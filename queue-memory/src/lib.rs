#![doc = include_str!("../README.md")]

mod admin;
mod backend;
mod message;
mod state;

pub use backend::MemoryBackend;
