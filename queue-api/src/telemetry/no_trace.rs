//! What stands for spans and propagators without the feature `tracing`: nothing.

use std::{fmt, future::Future};

use crate::{Delivery, Headers, NewMessage, QueueName};

/// Nothing implements it.
pub(crate) trait Propagator: fmt::Debug + Send + Sync {}

pub(crate) fn inject(_: &dyn Propagator, _: &mut NewMessage) {}

pub(crate) struct GuardedSpan;

impl GuardedSpan {
    pub(crate) fn link(&self, _: &dyn Propagator, _: &Headers) {}

    pub(crate) fn record(&self, _: &str, _: &str) {}

    pub(crate) fn in_scope<T>(&self, call: impl FnOnce() -> T) -> T {
        call()
    }

    pub(crate) async fn instrument<F: Future>(&self, future: F) -> F::Output {
        future.await
    }
}

pub(crate) fn send_span(_: &QueueName, _: &[NewMessage]) -> GuardedSpan {
    GuardedSpan
}

pub(crate) fn process_span(_: &QueueName, _: &Delivery) -> GuardedSpan {
    GuardedSpan
}
