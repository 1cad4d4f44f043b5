//! A recorder of metrics and a subscriber of `tracing`, which panic at one place.

use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tracing::{Event, Id, Subscriber, span, subscriber::Interest};

use crate::code::{Code, Place};

impl Recorder for Code {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.at(Place::Recorder);
        Counter::from_arc(Arc::new(self.clone()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.at(Place::Recorder);
        Gauge::from_arc(Arc::new(self.clone()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.at(Place::Recorder);
        Histogram::from_arc(Arc::new(self.clone()))
    }
}

impl CounterFn for Code {
    fn increment(&self, _: u64) {
        self.at(Place::RecorderHandle);
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Code {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}

    fn set(&self, _: f64) {
        self.at(Place::RecorderHandle);
    }
}

impl HistogramFn for Code {
    fn record(&self, _: f64) {
        self.at(Place::RecorderHandle);
    }
}

impl Subscriber for Code {
    /// So that `enabled` is called each time.
    fn register_callsite(&self, _: &'static tracing::Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    /// Only what this project sends: tokio's own spans are not its matter.
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        let is_own = metadata.target().starts_with("queue_api");
        if is_own {
            self.at(Place::SubscriberEnabled);
        }
        is_own
    }

    fn event_enabled(&self, _: &Event<'_>) -> bool {
        self.at(Place::SubscriberEventEnabled);
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> Id {
        self.at(Place::SubscriberNewSpan);
        Id::from_u64(1)
    }

    fn event(&self, _: &Event<'_>) {
        self.at(Place::SubscriberEvent);
    }

    fn record(&self, _: &Id, _: &span::Record<'_>) {
        self.at(Place::SubscriberRecord);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {
        self.at(Place::SubscriberEnter);
    }

    fn exit(&self, _: &Id) {
        self.at(Place::SubscriberExit);
    }

    fn try_close(&self, _: Id) -> bool {
        self.at(Place::SubscriberClose);
        true
    }
}
