//! Spans and trace propagation.
//!
//! The spans are those of `tracing`. Their attributes follow the OpenTelemetry
//! [conventions for messaging](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/).
//! `tracing-opentelemetry` reads the fields `otel.name` and `otel.kind`; this crate does not
//! depend on it.
//!
//! | span | kind | where |
//! |---|---|---|
//! | `send` | producer | [`Queue::enqueue`](crate::Queue::enqueue), [`enqueue_batch`](crate::Queue::enqueue_batch), [`enqueue_in`](crate::Queue::enqueue_in) |
//! | `process` | consumer | [`Worker`](crate::consumer::Worker), around the handler |

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
};

use tracing::{Span, field::Empty, info_span};

use super::{log::SUBSCRIBER, metrics::SYSTEM};
use crate::{Delivery, Headers, NewMessage, Queue, QueueName, catch_panic::isolated};

/// The header with the sender's trace context, as in
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/).
pub const TRACEPARENT: &str = "traceparent";

/// Propagates a trace from the sender of a message to its handler.
///
/// Pass an implementation to [`Queue::with_propagator`](crate::Queue::with_propagator), of the sender
/// and of the worker. Without one, headers are sent unchanged. If a sender sets a valid
/// [`TRACEPARENT`] itself, the `process` span has it as the field `traceparent`.
///
/// # OpenTelemetry
///
/// This is a whole implementation, with the crates `opentelemetry` and `tracing-opentelemetry`:
///
/// ```
/// use opentelemetry::{
///     global,
///     propagation::{Extractor, Injector},
///     trace::TraceContextExt,
/// };
/// use queue_api::{Headers, trace::Propagator};
/// use tracing::Span;
/// use tracing_opentelemetry::OpenTelemetrySpanExt;
///
/// #[derive(Debug)]
/// struct OpenTelemetry;
///
/// impl Propagator for OpenTelemetry {
///     fn inject(&self, headers: &mut Headers) {
///         let context = Span::current().context();
///         let mut headers = Writer(headers);
///         global::get_text_map_propagator(|to| to.inject_context(&context, &mut headers));
///     }
///
///     fn link(&self, span: &Span, headers: &Headers) {
///         let sender = global::get_text_map_propagator(|from| from.extract(&Reader(headers)));
///         // Or `set_parent`, if one trace shall have the sender and the handler.
///         span.add_link(sender.span().span_context().clone());
///     }
/// }
///
/// struct Writer<'a>(&'a mut Headers);
///
/// impl Injector for Writer<'_> {
///     fn set(&mut self, name: &str, value: String) {
///         self.0.insert(name.to_owned(), value);
///     }
/// }
///
/// struct Reader<'a>(&'a Headers);
///
/// impl Extractor for Reader<'_> {
///     fn get(&self, name: &str) -> Option<&str> {
///         self.0.get(name).map(String::as_str)
///     }
///
///     fn keys(&self) -> Vec<&str> {
///         self.0.keys().map(String::as_str).collect()
///     }
/// }
/// # use std::sync::Arc;
/// # use opentelemetry::trace::TracerProvider;
/// # use opentelemetry_sdk::{
/// #     propagation::TraceContextPropagator,
/// #     trace::{InMemorySpanExporter, SdkTracerProvider},
/// # };
/// # use queue_api::{NewMessage, Queue, consumer::{Context, Failure, Worker}};
/// # use queue_memory::MemoryBackend;
/// # use tracing_subscriber::layer::SubscriberExt;
/// #
/// # async fn handle(_: u8, _: Context) -> Result<(), Failure> { Ok(()) }
/// #
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> queue_api::Result<()> {
/// # let exporter = InMemorySpanExporter::default();
/// # let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
/// # let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
/// # let _subscriber =
/// #     tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
///
/// global::set_text_map_propagator(TraceContextPropagator::new()); // of `opentelemetry_sdk`
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "traced")?
///     .with_propagator(Arc::new(OpenTelemetry));
/// # queue.enqueue(&NewMessage::new("7")).await?;
/// # let report = Worker::new(queue, handle).run_until_idle().await?;
/// # assert_eq!(report.handled, 1);
/// # let spans = exporter.get_finished_spans().expect("exported");
/// # let named = |name| spans.iter().find(|span| span.name == name).expect("a span");
/// # let (send, process) = (named("send traced"), named("process traced"));
/// # let linked: Vec<_> = process.links.iter().map(|link| &link.span_context).collect();
/// # assert_eq!(linked.len(), 1);
/// # assert_eq!(linked[0].trace_id(), send.span_context.trace_id());
/// # assert_eq!(linked[0].span_id(), send.span_context.span_id());
/// # Ok(())
/// # }
/// ```
pub trait Propagator: fmt::Debug + Send + Sync + 'static {
    /// Writes the context of the current span to the headers of a message before it is sent. Not
    /// called if the message already has a [`TRACEPARENT`].
    fn inject(&self, headers: &mut Headers);

    /// Connects `span`, in which the message will be handled, to the sender's context.
    fn link(&self, span: &Span, headers: &Headers);
}

impl Queue {
    /// Propagates traces from senders to workers. An enqueue adds the current trace context to
    /// the headers, and a worker connects its spans to it.
    ///
    /// Needs the feature `tracing`, which is on by default.
    #[must_use]
    pub fn with_propagator(mut self, propagator: Arc<dyn Propagator>) -> Self {
        self.propagator = Some(propagator);
        self
    }
}

/// Adds the context of the current span to the headers, unless the sender has set one.
pub(crate) fn inject(propagator: &dyn Propagator, message: &mut NewMessage) {
    if !message.headers.contains_key(TRACEPARENT) {
        isolated("the propagator", || propagator.inject(&mut message.headers));
    }
}

/// A span whose subscriber may panic. The subscriber is code of the application, and must not fail a
/// message.
pub(crate) struct GuardedSpan(Option<Span>);

impl GuardedSpan {
    fn new(make: impl FnOnce() -> Span) -> Self {
        let mut span = None;
        isolated(SUBSCRIBER, || span = Some(make()));
        Self(span)
    }

    /// Connects the span to the sender's context.
    pub(crate) fn link(&self, propagator: &dyn Propagator, headers: &Headers) {
        if let Some(span) = &self.0 {
            isolated("the propagator", || propagator.link(span, headers));
        }
    }

    pub(crate) fn record(&self, field: &str, value: &str) {
        if let Some(span) = &self.0 {
            isolated(SUBSCRIBER, || _ = span.record(field, value));
        }
    }

    pub(crate) fn in_scope<T>(&self, call: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        call()
    }

    /// Runs a future in the span.
    pub(crate) async fn instrument<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| self.in_scope(|| future.as_mut().poll(cx))).await
    }

    fn enter(&self) -> Entered<'_> {
        let mut entered = None;
        if let Some(span) = &self.0 {
            isolated(SUBSCRIBER, || {
                span.with_subscriber(|(id, subscriber)| subscriber.enter(id));
                entered = Some(span);
            });
        }
        Entered(entered)
    }
}

impl Drop for GuardedSpan {
    fn drop(&mut self) {
        isolated(SUBSCRIBER, || drop(self.0.take()));
    }
}

/// Exits the span when it is dropped.
struct Entered<'a>(Option<&'a Span>);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(span) = self.0 {
            isolated(SUBSCRIBER, || {
                span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
            });
        }
    }
}

pub(crate) fn send_span(queue: &QueueName, messages: &[NewMessage]) -> GuardedSpan {
    GuardedSpan::new(|| new_send_span(queue, messages))
}

fn new_send_span(queue: &QueueName, messages: &[NewMessage]) -> Span {
    let span = info_span!(
        "send",
        otel.name = %format_args!("send {queue}"),
        otel.kind = "producer",
        messaging.system = SYSTEM,
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = %queue,
        messaging.message.id = Empty,
        messaging.batch.message_count = Empty,
        error.type = Empty,
    );
    match messages {
        // By the conventions: the id of a single message, the count of a batch.
        [message] => span.record("messaging.message.id", message.id.as_str()),
        _ => span.record("messaging.batch.message_count", messages.len()),
    };
    span
}

pub(crate) fn process_span(queue: &QueueName, delivery: &Delivery) -> GuardedSpan {
    let span = GuardedSpan::new(|| new_process_span(queue, delivery));
    if let Some(context) = traceparent(&delivery.headers) {
        span.record(TRACEPARENT, context);
    }
    span
}

fn new_process_span(queue: &QueueName, delivery: &Delivery) -> Span {
    info_span!(
        "process",
        otel.name = %format_args!("process {queue}"),
        otel.kind = "consumer",
        messaging.system = SYSTEM,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = %queue,
        messaging.message.id = delivery.id.as_str(),
        messaging.message.body.size = delivery.payload.len(),
        queue.attempt = delivery.attempt,
        traceparent = Empty,
        error.type = Empty,
    )
}

/// The sender's trace context, if it is valid by
/// [the rules of W3C](https://www.w3.org/TR/trace-context/#traceparent-header-field-values).
fn traceparent(headers: &Headers) -> Option<&str> {
    let context = headers.get(TRACEPARENT)?;
    let mut parts = context.splitn(5, '-');
    let mut hex = |digits| {
        let part = parts.next()?;
        (part.len() == digits && part.bytes().all(is_lower_hex)).then_some(part)
    };
    let version = hex(2).filter(|version| *version != "ff")?;
    hex(32).filter(|trace| has_bits(trace))?;
    hex(16).filter(|parent| has_bits(parent))?;
    hex(2)?;
    // Later versions may add parts.
    (version != "00" || parts.next().is_none()).then_some(context)
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn has_bits(id: &str) -> bool {
    id.bytes().any(|digit| digit != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    fn is_valid(context: &str) -> bool {
        let headers = [(TRACEPARENT.to_owned(), context.to_owned())].into();
        traceparent(&headers) == Some(context)
    }

    #[test]
    fn a_context_is_valid_by_the_rules_of_w3c() {
        let zeros = "0".repeat(32);
        let short = &PARENT[1..];
        let upper = TRACE.to_uppercase();
        for (context, valid) in [
            (format!("00-{TRACE}-{PARENT}-01"), true),
            (format!("00-{TRACE}-{PARENT}-ff"), true),
            (format!("01-{TRACE}-{PARENT}-00"), true),
            (format!("cc-{TRACE}-{PARENT}-01-what-will-come"), true),
            (format!("fe-{TRACE}-{PARENT}-01-"), true),
            (format!("00-{TRACE}-{PARENT}-01-more"), false),
            (format!("00-{TRACE}-{PARENT}-01-"), false),
            (format!("01-{TRACE}-{PARENT}-01more"), false),
            (format!("ff-{TRACE}-{PARENT}-01"), false),
            (format!("FE-{TRACE}-{PARENT}-01"), false),
            (format!("0-{TRACE}-{PARENT}-01"), false),
            (format!("00-{zeros}-{PARENT}-01"), false),
            (format!("00-{TRACE}-{}-01", &zeros[..16]), false),
            (format!("00-{upper}-{PARENT}-01"), false),
            (format!("00-{TRACE}-{short}-01"), false),
            (format!("00-{TRACE}-{PARENT}-1"), false),
            (format!("00-{TRACE}-{PARENT}"), false),
            (format!(" 00-{TRACE}-{PARENT}-01"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_valid(&context), valid, "{context:?}");
        }
    }
}
