#![doc = include_str!("../../docs/consuming.md")]

mod backoff;
mod crew;
mod handler;
mod inbox;
mod keeper;
mod lease;
mod listener;
mod observed;
mod options;
pub(crate) mod panic;
mod report;
mod retry;
#[cfg(feature = "tower")]
mod service;
mod worker;

#[cfg(feature = "tower")]
pub use self::service::{Request, ServiceHandler};
pub use self::{
    handler::{Context, Handler},
    lease::{Lease, LeaseAnswer, LeaseEnd},
    listener::Listener,
    options::ListenOptions,
    report::Report,
    retry::{Failure, Retry, RetryPolicy},
    worker::Worker,
};
