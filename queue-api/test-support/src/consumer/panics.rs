//! Code of the application that panics, at every place where it is called from.

use std::{
    fmt,
    panic::{AssertUnwindSafe, panic_any},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use futures::FutureExt;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use queue_api::{
    Bytes, Clock, Codec, CodecError, ErrorKind, Headers, Queue, Result, async_trait,
    consumer::{Context, Failure, ListenOptions, Report, Retry, RetryPolicy, Worker},
    trace::{Propagator, TRACEPARENT},
};
use tracing::{
    Event, Id, Span, Subscriber,
    instrument::WithSubscriber,
    span,
    subscriber::{Interest, NoSubscriber},
};

use super::{
    fixture::{Fixture, HOUR, SECOND, msg},
    telemetry::CONTEXT,
    worker::counts,
};
use crate::{Fault, Operation};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Recorder,
    RecorderHandle,
    PropagatorInject,
    PropagatorLink,
    SubscriberEnabled,
    SubscriberEvent,
    SubscriberNewSpan,
    SubscriberRecord,
    SubscriberEnter,
    SubscriberExit,
    SubscriberClose,
    ClockNow,
    ClockSleep,
    ErrorHook,
    Codec,
    CodecErrorDisplay,
    MessageDrop,
    HandlerCall,
    HandlerPoll,
    HandlerDrop,
    HandlerPanicDrop,
    FailureDisplay,
    FailureDrop,
    RetryPolicy,
}

/// Each place, whether it panics always or once, and the counts of the report on two messages.
///
/// A message whose own code panics fails. What only observes a message, or tells the time, does
/// not make it fail.
const PLACES: &[(Place, bool, [u64; 6])] = &[
    (Place::Recorder, true, [2, 0, 0, 0, 0, 0]),
    (Place::Recorder, false, [2, 0, 0, 0, 0, 0]),
    (Place::RecorderHandle, true, [2, 0, 0, 0, 0, 0]),
    (Place::RecorderHandle, false, [2, 0, 0, 0, 0, 0]),
    (Place::PropagatorInject, true, [2, 0, 0, 0, 0, 0]),
    (Place::PropagatorInject, false, [2, 0, 0, 0, 0, 0]),
    (Place::PropagatorLink, true, [2, 0, 0, 0, 0, 0]),
    (Place::PropagatorLink, false, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberEnabled, true, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberEnabled, false, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberEvent, true, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberEvent, false, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberNewSpan, true, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberNewSpan, false, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberRecord, true, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberRecord, false, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberEnter, true, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberEnter, false, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberExit, true, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberExit, false, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberClose, true, [2, 0, 0, 0, 0, 0]),
    (Place::SubscriberClose, false, [2, 0, 0, 0, 0, 0]),
    (Place::ClockNow, true, [2, 0, 0, 0, 0, 0]),
    (Place::ClockNow, false, [2, 0, 0, 0, 0, 0]),
    (Place::ClockSleep, true, [2, 0, 0, 0, 0, 0]),
    (Place::ClockSleep, false, [2, 0, 0, 0, 0, 0]),
    (Place::ErrorHook, true, [2, 0, 0, 0, 0, 0]),
    (Place::ErrorHook, false, [2, 0, 0, 0, 0, 0]),
    (Place::Codec, true, [0, 48, 2, 0, 0, 0]),
    (Place::Codec, false, [2, 1, 0, 0, 0, 0]),
    (Place::CodecErrorDisplay, false, [2, 1, 0, 0, 0, 0]),
    (Place::MessageDrop, false, [2, 1, 0, 0, 0, 0]),
    (Place::HandlerCall, false, [2, 1, 0, 0, 0, 0]),
    (Place::HandlerPoll, false, [2, 1, 0, 0, 0, 0]),
    (Place::HandlerDrop, false, [2, 1, 0, 0, 0, 0]),
    (Place::HandlerPanicDrop, false, [2, 1, 0, 0, 0, 0]),
    (Place::FailureDisplay, false, [2, 1, 0, 0, 0, 0]),
    (Place::FailureDrop, false, [2, 1, 0, 0, 0, 0]),
    (Place::RetryPolicy, false, [2, 1, 0, 0, 0, 0]),
];

/// Code of the application that panics at one place.
#[derive(Clone, Debug)]
struct Panics {
    place: Place,
    always: bool,
    done: Arc<AtomicBool>,
}

impl Panics {
    /// Whether to panic at `place` now.
    fn is_due(&self, place: Place) -> bool {
        self.place == place && (!self.done.swap(true, Ordering::Relaxed) || self.always)
    }

    fn at(&self, place: Place) {
        assert!(!self.is_due(place), "{place:?} panicked");
    }
}

impl Recorder for Panics {
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

impl CounterFn for Panics {
    fn increment(&self, _: u64) {
        self.at(Place::RecorderHandle);
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Panics {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}

    fn set(&self, _: f64) {
        self.at(Place::RecorderHandle);
    }
}

impl HistogramFn for Panics {
    fn record(&self, _: f64) {
        self.at(Place::RecorderHandle);
    }
}

impl Propagator for Panics {
    fn inject(&self, _: &mut Headers) {
        self.at(Place::PropagatorInject);
    }

    fn link(&self, _: &Span, _: &Headers) {
        self.at(Place::PropagatorLink);
    }
}

impl Subscriber for Panics {
    /// So that `enabled` is called each time.
    fn register_callsite(&self, _: &'static tracing::Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        self.at(Place::SubscriberEnabled);
        use Place::*;
        matches!(
            self.place,
            SubscriberEvent
                | SubscriberNewSpan
                | SubscriberRecord
                | SubscriberEnter
                | SubscriberExit
                | SubscriberClose
        )
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

#[derive(Debug)]
struct PanickingClock(Panics, Arc<dyn Clock>);

#[async_trait]
impl Clock for PanickingClock {
    fn now(&self) -> SystemTime {
        self.0.at(Place::ClockNow);
        self.1.now()
    }

    async fn sleep_until(&self, deadline: SystemTime) {
        self.0.at(Place::ClockSleep);
        self.1.sleep_until(deadline).await;
    }
}

/// A decoded message.
struct Message(Panics);

impl Drop for Message {
    fn drop(&mut self) {
        self.0.at(Place::MessageDrop);
    }
}

impl Codec<Message> for Panics {
    fn encode(&self, _: &Message) -> Result<Bytes, CodecError> {
        Ok(Bytes::new())
    }

    fn decode(&self, _: &Bytes) -> Result<Message, CodecError> {
        self.at(Place::Codec);
        if self.place == Place::CodecErrorDisplay && !self.done.load(Ordering::Relaxed) {
            return Err(Box::new(PanickingError(self.clone())));
        }
        Ok(Message(self.clone()))
    }
}

struct PanickingError(Panics);

impl std::error::Error for PanickingError {}

impl fmt::Debug for PanickingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PanickingError")
    }
}

impl fmt::Display for PanickingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.at(Place::FailureDisplay);
        self.0.at(Place::CodecErrorDisplay);
        f.write_str("an error of the test")
    }
}

impl Drop for PanickingError {
    fn drop(&mut self) {
        self.0.at(Place::FailureDrop);
    }
}

struct PanicsOnDrop(Panics);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        self.0.at(Place::HandlerDrop);
    }
}

/// The payload of a panic.
struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("the payload panicked");
    }
}

async fn handle(panics: Panics, sends_to: Queue) -> Result<(), Failure> {
    if panics.place == Place::PropagatorInject {
        sends_to.enqueue(&msg("later").with_delay(HOUR)).await?;
    }
    let _dropped = PanicsOnDrop(panics.clone());
    tokio::task::yield_now().await;
    panics.at(Place::HandlerPoll);
    let first = !panics.done.load(Ordering::Relaxed);
    match panics.place {
        Place::HandlerPanicDrop if first => {
            panics.done.store(true, Ordering::Relaxed);
            panic_any(PanicsAgain)
        }
        Place::FailureDisplay if first => Err(Failure::give_up(PanickingError(panics))),
        Place::FailureDrop | Place::RetryPolicy if first => {
            Err(Failure::retry(PanickingError(panics)))
        }
        _ => Ok(()),
    }
}

/// Runs a worker on two messages. The second one comes after the panic.
async fn run(fixture: &Fixture, panics: &Panics) -> Result<Report, String> {
    let queue = Queue::new(fixture.queue.backend().clone(), "q").unwrap();
    let (hook, policy, handler) = (panics.clone(), panics.clone(), panics.clone());
    let clock = PanickingClock(panics.clone(), fixture.clock.clone());
    let options = ListenOptions::new(4)
        .with_clock(Arc::new(clock))
        .with_error_hook(move |_| hook.at(Place::ErrorHook));
    let queue = queue.with_propagator(Arc::new(panics.clone()));
    let sends_to = queue.clone();
    let worker = Worker::new(queue, move |_: Message, _: Context| {
        handler.at(Place::HandlerCall);
        handle(handler.clone(), sends_to.clone())
    })
    .with_codec(panics.clone())
    .with_listen_options(options)
    .with_time_limit(HOUR)
    .with_retry_policy(RetryPolicy::custom(move |_| {
        policy.at(Place::RetryPolicy);
        Retry::After(SECOND)
    }));
    let stop = fixture.clock.now() + SECOND * 60;
    let sending = async {
        // So that the error hook is called and something is logged.
        fixture
            .faulty
            .fault_once(Operation::Lease, Fault::Before(ErrorKind::Unavailable));
        let first = msg("first").with_header(TRACEPARENT, CONTEXT);
        fixture.store(&[first]).await;
        fixture.advance(SECOND * 30).await;
        fixture
            .faulty
            .fault_once(Operation::Wait, Fault::Before(ErrorKind::Unavailable));
        fixture.store(&[msg("second")]).await;
    };
    // The sender is not part of the check.
    let sending = sending.with_subscriber(NoSubscriber::default());
    let running = async { futures::join!(worker.run(fixture.clock.sleep_until(stop)), sending).0 };
    let report = AssertUnwindSafe(running).catch_unwind().await;
    let report = report.map_err(|_| "a call panicked".to_owned())?;
    let report = report.map_err(|error| format!("run returned an error: {error}"))?;
    match fixture.clock.now() == stop {
        true => Ok(report),
        false => Err(format!("run ended early: {report}")),
    }
}

pub(super) async fn code_that_panics_ends_neither_the_listener_nor_the_worker(fixture: Fixture) {
    let mut problems = Vec::new();
    for (place, always, expected) in PLACES {
        let panics = Panics {
            place: *place,
            always: *always,
            done: Arc::default(),
        };
        let subscribed = tracing::subscriber::set_default(panics.clone());
        let recording = metrics::set_default_local_recorder(&panics);
        let outcome = run(&fixture, &panics).await;
        drop((subscribed, recording));
        match outcome {
            Ok(report) if counts(report) == *expected => {}
            Ok(report) => problems.push(format!("{place:?}, always {always}: {report}")),
            Err(problem) => problems.push(format!("{place:?}, always {always}: {problem}")),
        }
        assert!(
            panics.done.load(Ordering::Relaxed),
            "{place:?} was not called"
        );
        fixture.faulty.clear();
        fixture.purge().await;
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

pub(super) async fn a_shutdown_future_that_panics_is_an_error(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let worker = super::worker::acking_worker(&fixture);
    let shutdown = async {
        fixture.advance(SECOND).await;
        panic!("of the signal")
    };
    let running = AssertUnwindSafe(worker.run(shutdown)).catch_unwind();
    let error = running.await.expect("it does not panic").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let text = error.to_string();
    assert!(
        text.contains("the shutdown future panicked: of the signal"),
        "{text}"
    );
    assert_eq!(
        fixture.stats().await,
        Default::default(),
        "it shut down gracefully"
    );
}
