#![doc = include_str!("../README.md")]

mod apart;
mod container;
mod daemon;
mod database;
pub mod documentdb;
mod error;
mod fetch;
mod image;
mod leash;
mod members;
mod options;
mod process;
mod replica_set;
mod running;
mod search;
mod server;
mod source;

pub use database::ScratchDatabase;
pub use error::{FaultError, StartError, StopError};
pub use members::{CutFrom, Member, MongoReplicaSet, ReplicaSetOptions};
pub use options::ServerOptions;
pub use server::MongoServer;
pub use source::Source;
