//! Metrics, traces and log lines.

pub(crate) mod consumer;
pub mod metrics;
pub mod trace;
