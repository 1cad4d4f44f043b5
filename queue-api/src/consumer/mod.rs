#![doc = include_str!("../../docs/consuming.md")]

mod backoff;
mod handler;
mod handler_runner;
mod inbox;
mod lease;
mod listener;
mod listener_task;
mod options;
mod report;
mod retry;
#[cfg(feature = "tower")]
mod service;
mod worker;

pub(crate) use self::backoff::Backoff;
#[cfg(feature = "tower")]
pub use self::service::{Request, ServiceHandler};
pub use self::{
    handler::{BoxHandler, Context, Handler},
    lease::{Lease, LeaseEnd, SettleFuture},
    listener::Listener,
    options::ListenOptions,
    report::Report,
    retry::{FailedAttempt, Failure, FailureKind, Retry, RetryPolicy},
    worker::Worker,
};
