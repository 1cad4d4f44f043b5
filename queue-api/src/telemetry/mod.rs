//! Metrics, traces and log lines. Each of the features `metrics` and `tracing` is a module here, which
//! has an empty one beside it.

pub(crate) mod consumer;
pub(crate) mod log;
pub mod metrics;
#[cfg_attr(not(feature = "metrics"), path = "no_recorder.rs")]
mod recorder;
#[cfg(feature = "tracing")]
pub mod trace;
#[cfg(not(feature = "tracing"))]
#[path = "no_trace.rs"]
pub(crate) mod trace;
