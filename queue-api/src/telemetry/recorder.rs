//! Calls of the recorder that the application has installed. It is code of the application, and must
//! not stop a queue.

use std::time::Duration;

use ::metrics::{Key, Level, Metadata, SharedString, counter, gauge, histogram, with_recorder};

use crate::catch_panic::isolated;

pub(crate) use ::metrics::Label;

fn record(call: impl FnOnce()) {
    isolated("the metrics recorder", call);
}

pub(crate) fn label(name: &'static str, value: impl Into<SharedString>) -> Label {
    Label::new(name, value)
}

/// A counter whose key is created once, because creating a key can cost more than a call on a
/// backend in memory.
#[derive(Debug)]
pub(crate) struct Counter(Key);

impl Counter {
    pub(crate) fn new(name: &'static str, labels: Vec<Label>) -> Self {
        Self(Key::from_parts(name, labels))
    }

    /// Gets the recorder on each call, because it can be installed at any time.
    pub(crate) fn increment(&self, by: usize) {
        static METADATA: Metadata<'static> =
            Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        if by > 0 {
            record(|| {
                with_recorder(|recorder| {
                    recorder
                        .register_counter(&self.0, &METADATA)
                        .increment(by as u64)
                });
            });
        }
    }
}

pub(crate) fn count(name: &'static str, labels: Vec<Label>, by: usize) {
    record(|| counter!(name, labels).increment(by as u64));
}

pub(crate) fn observe(name: &'static str, labels: Vec<Label>, time: Duration) {
    record(|| histogram!(name, labels).record(time));
}

pub(crate) fn set(name: &'static str, labels: Vec<Label>, value: f64) {
    record(|| gauge!(name, labels).set(value));
}
