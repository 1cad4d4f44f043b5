//! Warnings of the code under test, counted for each thread.
//!
//! The subscriber is global and set before the first test. A subscriber of one test may miss events:
//! if another thread meets the place of an event first, while no subscriber is set, tracing remembers
//! that no subscriber is interested.

use std::cell::Cell;

use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        COUNT.with(|count| count.set(count.get() + 1));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

pub(crate) fn count_from_now() {
    tracing::subscriber::set_global_default(Warnings).expect("it is the first");
}

/// How many there were on this thread. Tests on one thread have one of their own.
pub(crate) fn on_this_thread() -> usize {
    COUNT.with(Cell::get)
}
