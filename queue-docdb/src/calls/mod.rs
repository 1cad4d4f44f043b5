//! The calls of the contract on a queue's collection.

pub(crate) mod admin;
pub(crate) mod claim;
pub(crate) mod dead_letters;
pub(crate) mod delete;
pub(crate) mod enqueue;
pub(crate) mod in_session;
pub(crate) mod lease;
pub(crate) mod pages;
pub(crate) mod peek;
pub(crate) mod settle;
pub(crate) mod stats;
pub(crate) mod uses;
pub(crate) mod wait;
