//! Code of the application, which panics at one place.

use std::{
    error::Error as StdError,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::SystemTime,
};

use queue_api::{
    Bytes, Clock, Codec, CodecError, Headers, TokioClock, async_trait, consumer::Failure,
    trace::Propagator,
};
use tracing::Span;

/// Where code of the application is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Recorder,
    RecorderHandle,
    PropagatorInject,
    PropagatorLink,
    SubscriberEnabled,
    SubscriberEventEnabled,
    SubscriberEvent,
    SubscriberNewSpan,
    SubscriberRecord,
    SubscriberEnter,
    SubscriberExit,
    SubscriberClose,
    ClockNow,
    ClockSleepCall,
    ClockSleep,
    ClockSleepDrop,
    ErrorHook,
    Encode,
    Decode,
    CodecErrorDisplay,
    CodecErrorSource,
    CodecErrorDrop,
    MessageDrop,
    HandlerCall,
    HandlerPoll,
    HandlerDrop,
    HandlerPanicDrop,
    ErrorInto,
    ErrorDisplay,
    ErrorSource,
    ErrorDrop,
    RetryPolicy,
    ShutdownPoll,
    ShutdownDrop,
    ShutdownOutputDrop,
    ServiceClone,
    ServiceReady,
    ServiceCall,
    ServicePoll,
    ServiceDrop,
    StreamPoll,
}

impl Place {
    pub(crate) const ALL: [Self; 41] = [
        Self::Recorder,
        Self::RecorderHandle,
        Self::PropagatorInject,
        Self::PropagatorLink,
        Self::SubscriberEnabled,
        Self::SubscriberEventEnabled,
        Self::SubscriberEvent,
        Self::SubscriberNewSpan,
        Self::SubscriberRecord,
        Self::SubscriberEnter,
        Self::SubscriberExit,
        Self::SubscriberClose,
        Self::ClockNow,
        Self::ClockSleepCall,
        Self::ClockSleep,
        Self::ClockSleepDrop,
        Self::ErrorHook,
        Self::Encode,
        Self::Decode,
        Self::CodecErrorDisplay,
        Self::CodecErrorSource,
        Self::CodecErrorDrop,
        Self::MessageDrop,
        Self::HandlerCall,
        Self::HandlerPoll,
        Self::HandlerDrop,
        Self::HandlerPanicDrop,
        Self::ErrorInto,
        Self::ErrorDisplay,
        Self::ErrorSource,
        Self::ErrorDrop,
        Self::RetryPolicy,
        Self::ShutdownPoll,
        Self::ShutdownDrop,
        Self::ShutdownOutputDrop,
        Self::ServiceClone,
        Self::ServiceReady,
        Self::ServiceCall,
        Self::ServicePoll,
        Self::ServiceDrop,
        Self::StreamPoll,
    ];

    pub(crate) fn is_of(self, part: &str) -> bool {
        format!("{self:?}").starts_with(part)
    }

    /// Whether code there only observes a message or tells the time. Then no message fails.
    pub(crate) fn observes(self) -> bool {
        let parts = ["Recorder", "Propagator", "Subscriber", "Clock", "ErrorHook"];
        parts.iter().any(|part| self.is_of(part))
    }
}

/// Panics at one place: once, or each time until it is mended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    place: Option<Place>,
    /// How many calls go well before.
    skip: usize,
    once: bool,
    called: AtomicUsize,
    met: AtomicUsize,
    /// How often a payload was decoded.
    decoded: AtomicUsize,
    mended: AtomicBool,
}

impl Code {
    pub(crate) fn new(place: Place, skip: usize, once: bool) -> Self {
        Self(Arc::new(Inner {
            place: Some(place),
            skip,
            once,
            ..Inner::default()
        }))
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.0.place
    }

    pub(crate) fn met(&self) -> usize {
        self.0.met.load(Ordering::Relaxed)
    }

    pub(crate) fn decoded(&self) -> usize {
        self.0.decoded.load(Ordering::Relaxed)
    }

    pub(crate) fn mend(&self) {
        self.0.mended.store(true, Ordering::Relaxed);
    }

    /// Whether to panic at `place` now. A second panic while one unwinds would abort.
    pub(crate) fn is_due(&self, place: Place) -> bool {
        let inner = &self.0;
        if inner.place != Some(place) || thread::panicking() || !self.is_broken() {
            return false;
        }
        let is_due = inner.called.fetch_add(1, Ordering::Relaxed) >= inner.skip;
        inner.met.fetch_add(usize::from(is_due), Ordering::Relaxed);
        is_due
    }

    fn is_broken(&self) -> bool {
        let mended = self.0.mended.load(Ordering::Relaxed);
        let is_over = self.0.once && self.met() > 0;
        !mended && !is_over
    }

    pub(crate) fn at(&self, place: Place) {
        assert!(!self.is_due(place), "a fault of the test at {place:?}");
    }

    /// A value that panics when it is dropped.
    pub(crate) fn dropped(&self, place: Place) -> PanicsOnDrop {
        PanicsOnDrop(self.clone(), place)
    }

    /// An error that panics when it is displayed, asked for its source, or dropped.
    pub(crate) fn error(&self) -> Failing {
        let places = [Place::ErrorDisplay, Place::ErrorSource, Place::ErrorDrop];
        Failing(self.clone(), places)
    }
}

#[derive(Debug)]
pub(crate) struct PanicsOnDrop(Code, Place);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        self.0.at(self.1);
    }
}

impl Propagator for Code {
    fn inject(&self, _: &mut Headers) {
        self.at(Place::PropagatorInject);
    }

    fn link(&self, _: &Span, _: &Headers) {
        self.at(Place::PropagatorLink);
    }
}

#[derive(Debug)]
pub(crate) struct PanickingClock(pub(crate) Code, pub(crate) Arc<TokioClock>);

#[async_trait]
impl Clock for PanickingClock {
    fn now(&self) -> SystemTime {
        self.0.at(Place::ClockNow);
        self.1.now()
    }

    // By hand, to panic before there is a future.
    fn sleep_until<'a: 'b, 'b>(
        &'a self,
        deadline: SystemTime,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'b>> {
        self.0.at(Place::ClockSleepCall);
        Box::pin(async move {
            let _dropped = self.0.dropped(Place::ClockSleepDrop);
            self.0.at(Place::ClockSleep);
            self.1.sleep_until(deadline).await;
        })
    }
}

/// A decoded message.
#[derive(Debug)]
pub(crate) struct Message(#[allow(dead_code)] PanicsOnDrop);

/// A codec for text.
#[derive(Clone, Debug)]
pub(crate) struct Text(pub(crate) Code);

impl Text {
    fn text(&self, payload: &Bytes) -> Result<String, CodecError> {
        self.0.0.decoded.fetch_add(1, Ordering::Relaxed);
        self.0.at(Place::Decode);
        if self
            .0
            .place()
            .is_some_and(|place| place.is_of("CodecError"))
            && self.0.is_broken()
        {
            use Place::{CodecErrorDisplay, CodecErrorDrop, CodecErrorSource};
            let places = [CodecErrorDisplay, CodecErrorSource, CodecErrorDrop];
            return Err(Box::new(Failing(self.0.clone(), places)));
        }
        Ok(std::str::from_utf8(payload)?.to_owned())
    }
}

impl Codec<String> for Text {
    fn encode(&self, value: &String) -> Result<Bytes, CodecError> {
        self.0.at(Place::Encode);
        Ok(value.clone().into())
    }

    fn decode(&self, payload: &Bytes) -> Result<String, CodecError> {
        self.text(payload)
    }
}

impl Codec<Message> for Text {
    fn encode(&self, _: &Message) -> Result<Bytes, CodecError> {
        Ok(Bytes::new())
    }

    fn decode(&self, payload: &Bytes) -> Result<Message, CodecError> {
        self.text(payload)?;
        Ok(Message(self.0.dropped(Place::MessageDrop)))
    }
}

/// An error whose code panics: its display, its source, its drop.
#[derive(Debug)]
pub(crate) struct Failing(Code, [Place; 3]);

impl StdError for Failing {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.at(self.1[1]);
        None
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.at(self.1[0]);
        f.write_str("an error of the test")
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.0.at(self.1[2]);
    }
}

/// The error of a handler.
#[derive(Debug)]
pub(crate) enum HandlerError {
    Retry(Failing),
    GiveUp(Failing),
    Store(queue_api::Error),
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Retry(failing) => {
                failing.0.at(Place::ErrorInto);
                Self::retry(failing)
            }
            HandlerError::GiveUp(failing) => {
                failing.0.at(Place::ErrorInto);
                Self::give_up(failing)
            }
            HandlerError::Store(error) => Self::retry(error),
        }
    }
}

/// The payload of a panic.
pub(crate) struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("a fault of the test in the payload of a panic");
    }
}
