//! Spans with the names of OpenTelemetry, and the trace context that travels with a message.
//!
//! The names of attributes are those of the
//! [semantic conventions for messaging](https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/).
//! There is no dependency on OpenTelemetry: spans are `tracing`'s, and `tracing-opentelemetry`
//! understands the fields `otel.name` and `otel.kind`.
//!
//! | span | kind | where |
//! |---|---|---|
//! | `send` | producer | [`Queue::enqueue`](crate::Queue::enqueue) and its batch |
//! | `process` | consumer | a [`Worker`](crate::consumer::Worker), around the handler |

use std::fmt;

use tracing::{Span, field::Empty, info_span};

use crate::{Headers, NewMessage, QueueName, consumer::Lease, metrics::SYSTEM};

/// The header that carries the sender's trace context, as
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/) defines it.
pub const TRACEPARENT: &str = "traceparent";

/// Carries a trace from the sender of a message to whoever handles it.
///
/// An application that uses OpenTelemetry implements it in a few lines and gives it to its queue
/// with [`Queue::with_propagator`](crate::Queue::with_propagator): `inject` asks
/// the global text map propagator to write the current span's context, `link` has it read the
/// headers and adds the result to the span, as a link or as its parent. Without a propagator,
/// messages are sent as they are, and a valid [`TRACEPARENT`] that a sender has set shows as the
/// field `traceparent` of the `process` span.
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
    /// Writes the context of the current span into the headers of a message that is being sent.
    /// It is not called for a message that has a [`TRACEPARENT`] already.
    fn inject(&self, headers: &mut Headers);

    /// Ties `span`, in which a message is about to be handled, to the sender's context.
    fn link(&self, span: &Span, headers: &Headers);
}

/// The messages as they are to be sent from within the current span.
pub(crate) fn injected(propagator: &dyn Propagator, messages: &[NewMessage]) -> Vec<NewMessage> {
    let mut messages = messages.to_vec();
    for message in &mut messages {
        if !message.headers.contains_key(TRACEPARENT) {
            propagator.inject(&mut message.headers);
        }
    }
    messages
}

pub(crate) fn send_span(queue: &QueueName, messages: &[NewMessage]) -> Span {
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
        // The conventions have the id where there is one message and the count where it is a batch.
        [message] => span.record("messaging.message.id", message.id.as_str()),
        _ => span.record("messaging.batch.message_count", messages.len()),
    };
    span
}

pub(crate) fn process_span(queue: &QueueName, lease: &Lease) -> Span {
    let span = info_span!(
        "process",
        otel.name = %format_args!("process {queue}"),
        otel.kind = "consumer",
        messaging.system = SYSTEM,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = %queue,
        messaging.message.id = lease.id().as_str(),
        messaging.message.body.size = lease.payload().len(),
        queue.attempt = lease.attempt(),
        traceparent = Empty,
        error.type = Empty,
    );
    if let Some(context) = traceparent(lease.headers()) {
        span.record(TRACEPARENT, context);
    }
    span
}

/// The sender's trace context, if it is one.
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
