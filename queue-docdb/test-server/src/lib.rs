#![doc = include_str!("../README.md")]

mod container;
mod database;
mod dedicated_runtime;
mod docker;
pub mod documentdb;
mod error;
mod image;
mod members;
mod mongod;
mod options;
mod process;
mod reaper;
mod replica_set;
mod server;
mod source;
mod ways;

pub use database::ScratchDatabase;
pub use error::{MemberError, StartError, StopError};
pub use members::{CutFrom, Member, MongoReplicaSet, ReplicaSetOptions};
pub use options::ServerOptions;
pub use server::MongoServer;
pub use source::Source;
