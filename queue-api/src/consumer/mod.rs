#![doc = include_str!("../../docs/consuming.md")]

mod backoff;
mod handler;
mod handler_runner;
mod hold;
mod inbox;
mod lease;
mod listener;
mod listener_task;
mod options;
mod report;
mod retry;
#[cfg(feature = "tower")]
mod service;
#[cfg(feature = "signal")]
mod signal;
mod worker;
mod workers;

#[cfg(feature = "tower")]
pub use self::service::{Request, ServiceFuture, ServiceHandler};
#[cfg(feature = "signal")]
pub use self::signal::shutdown_signal;
pub(crate) use self::{backoff::Backoff, listener_task::after};
pub use self::{
    handler::{BoxHandler, Context, Handler},
    hold::Hold,
    lease::{Lease, LeaseEnd, SettleFuture},
    listener::Listener,
    options::ListenOptions,
    report::Report,
    retry::{FailedAttempt, Failure, FailureKind, Retry, RetryPolicy},
    worker::Worker,
    workers::Workers,
};
