//! Spans and trace propagation.
//!
//! The spans are those of `tracing`. Their attributes follow the OpenTelemetry
//! [conventions for messaging](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/).
//! `tracing-opentelemetry` reads the fields `otel.name` and `otel.kind`; this crate does not
//! depend on it.
//!
//! | span | kind | where |
//! |---|---|---|
//! | `send` | producer | [`Queue::enqueue`](crate::Queue::enqueue), [`enqueue_batch`](crate::Queue::enqueue_batch) |
//! | `process` | consumer | [`Worker`](crate::consumer::Worker), around the handler |

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
};

use tracing::{Span, field::Empty, info_span};

use crate::{Delivery, Headers, NewMessage, QueueName, catch_panic::isolated, metrics::SYSTEM};

/// The header with the sender's trace context, as in
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/).
pub const TRACEPARENT: &str = "traceparent";

/// Propagates a trace from the sender of a message to its handler.
///
/// Pass an implementation to [`Queue::with_propagator`](crate::Queue::with_propagator). With
/// OpenTelemetry, both methods call the global text map propagator: `inject` writes the context
/// of the current span to the headers. `link` reads it and sets it as a link or parent of the
/// span.
///
/// Without a propagator, headers are sent unchanged. If a sender sets a valid [`TRACEPARENT`]
/// itself, the `process` span has it as the field `traceparent`.
///
/// ```
/// use std::sync::Arc;
/// use queue_api::{Headers, NewMessage, Queue, trace::{Propagator, TRACEPARENT}};
/// use queue_memory::MemoryBackend;
///
/// #[derive(Debug)]
/// struct Fixed(&'static str);
///
/// impl Propagator for Fixed {
///     fn inject(&self, headers: &mut Headers) {
///         headers.insert(TRACEPARENT.into(), self.0.into());
///     }
///
///     fn link(&self, _span: &tracing::Span, headers: &Headers) {
///         assert_eq!(headers[TRACEPARENT], self.0);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> queue_api::Result<()> {
/// let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let queue = Queue::new(Arc::new(MemoryBackend::new()), "traced")?
///     .with_propagator(Arc::new(Fixed(context)));
/// queue.enqueue(&NewMessage::new("hello")).await?;
/// let delivery = queue.lease().await?.expect("ready");
/// assert_eq!(delivery.headers[TRACEPARENT], context);
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

/// Adds the context of the current span to the headers, unless the sender has set one.
pub(crate) fn inject(propagator: &dyn Propagator, message: &mut NewMessage) {
    if !message.headers.contains_key(TRACEPARENT) {
        isolated("the propagator", || propagator.inject(&mut message.headers));
    }
}

/// A span whose subscriber may panic. The subscriber is code of the application, and must not fail a
/// message.
pub(crate) struct GuardedSpan(Option<Span>);

/// What a panic of a subscriber is logged as.
pub(crate) const SUBSCRIBER: &str = "the tracing subscriber";

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

/// The sender's trace context, if it is valid.
fn traceparent(headers: &Headers) -> Option<&str> {
    let context = headers.get(TRACEPARENT)?;
    let hex = |part: &str, digits| part.len() == digits && part.bytes().all(is_lower_hex);
    let parts: Vec<_> = context.split('-').collect();
    match parts[..] {
        [version, trace, parent, flags]
            if hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2) =>
        {
            Some(context)
        }
        _ => None,
    }
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
