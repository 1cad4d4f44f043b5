//! Metrics and spans.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use queue_api::{
    ErrorKind, Headers, Queue,
    consumer::{Context, Failure, Lease},
    metrics as names,
    trace::{Propagator, TRACEPARENT},
};
use tracing::{
    Event, Id, Span, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};

use super::{
    fixture::{Fixture, HOUR, SECOND, msg},
    worker::{acking_worker, worker},
};
use crate::{Fault, Operation, subscribe};

/// The recorded values by name and labels.
struct Recorded(BTreeMap<String, Vec<f64>>);

impl Recorded {
    fn new(snapshotter: &Snapshotter) -> Self {
        let all = snapshotter.snapshot().into_vec().into_iter();
        let by_name = all.map(|(key, _, _, value)| {
            let labels = key.key().labels();
            let labels = labels.map(|label| format!(" {}={}", label.key(), label.value()));
            let name = format!("{}{}", key.key().name(), labels.collect::<String>());
            let values = match value {
                DebugValue::Counter(count) => vec![count as f64],
                DebugValue::Gauge(value) => vec![value.0],
                DebugValue::Histogram(values) => values.iter().map(|value| value.0).collect(),
            };
            (name, values)
        });
        Self(by_name.collect())
    }

    fn values(&self, name: &str, labels: &str) -> &[f64] {
        let values = self.0.get(&format!("{name} queue=q{labels}"));
        values.map_or(&[], Vec::as_slice)
    }

    fn sum(&self, name: &str, labels: &str) -> f64 {
        self.values(name, labels).iter().sum()
    }
}

pub(super) async fn every_metric_is_recorded(fixture: Fixture) {
    // The recorder is local to the thread of this check.
    let recorder = DebuggingRecorder::new();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let mut messages = ["fine", "fails", "garbage", "long"].map(msg);
    messages[2].max_attempts = Some(1);
    fixture.store(&messages).await;
    fixture.store(&messages[..1]).await;
    fixture.advance(SECOND * 10).await;
    let clock = fixture.clock.clone();
    let worker = worker(&fixture, move |text: String, _: Context| {
        let clock = clock.clone();
        async move {
            match text.as_str() {
                "fails" => return Err(Failure::retry_after(HOUR, "no")),
                "long" => clock.sleep_until(clock.now() + SECOND * 100).await,
                _ => {}
            }
            Ok(())
        }
    });
    worker.run_until_idle().await.unwrap();
    fixture.faulty.go_down();
    let mut listener = fixture.listen(1);
    let nothing = tokio::time::timeout(SECOND * 5, listener.next()).await;
    assert!(nothing.is_err());
    fixture.queue.stats().await.unwrap();

    let recorded = Recorded::new(&recorder.snapshotter());
    for (name, labels, expected) in [
        (names::ENQUEUED, "", 4.0),
        (names::DUPLICATES, "", 1.0),
        (names::LEASED, "", 4.0),
        (names::ACKED, "", 2.0),
        (names::NACKED, "", 1.0),
        (names::DEAD_LETTERED, "", 1.0),
        (names::RELEASED, "", 0.0),
        (names::LEASES_LOST, " why=expired", 0.0),
        (names::DEPTH, " state=dead", 1.0),
        (names::DEPTH, " state=delayed", 1.0),
        (names::DEPTH, " state=ready", 0.0),
        (names::DEPTH, " state=leased", 0.0),
    ] {
        let sum = recorded.sum(name, labels);
        assert_eq!(sum, expected, "{name}{labels}");
    }
    assert!(recorded.sum(names::RENEWED, "") >= 6.0, "a hundred seconds");
    let errors = recorded.sum(names::STORE_ERRORS, " operation=test kind=unavailable");
    assert!(errors >= 5.0, "{errors}");
    let handling = recorded.values(names::HANDLING_TIME, " outcome=handled");
    let longest = handling.iter().copied().fold(0.0, f64::max);
    assert!((100.0..100.1).contains(&longest), "{handling:?}");
    let failed = recorded.values(names::HANDLING_TIME, " outcome=failed");
    assert!(!failed.is_empty());
    let in_queue = recorded.sum(names::TIME_IN_QUEUE, "") / 4.0;
    assert!((10.0..10.1).contains(&in_queue), "{in_queue}");
}

pub(super) async fn a_settlement_that_may_have_taken_effect_is_not_counted(fixture: Fixture) {
    let recorder = DebuggingRecorder::new();
    let _recording = metrics::set_default_local_recorder(&recorder);
    fixture.store_many(2).await;
    let mut listener = fixture.listen(2);
    let lost_answer = Fault::After(ErrorKind::TimedOut);
    fixture.faulty.fault_once(Operation::Ack, lost_answer);
    let ack = listener.next().await.unwrap().ack();
    assert_eq!(ack.await.unwrap_err().kind(), ErrorKind::TimedOut);
    fixture.faulty.fault_once(Operation::Change, lost_answer);
    let nack = listener.next().await.unwrap().nack(HOUR);
    assert_eq!(nack.await.unwrap_err().kind(), ErrorKind::TimedOut);
    let recorded = Recorded::new(&recorder.snapshotter());
    assert_eq!(recorded.sum(names::ACKED, ""), 0.0);
    assert_eq!(recorded.sum(names::NACKED, ""), 0.0);
    assert_eq!(recorded.sum(names::SETTLED_LOST, ""), 0.0);
    let errors = recorded.sum(names::STORE_ERRORS, " operation=test kind=timed out");
    assert_eq!(errors, 2.0);
}

pub(super) async fn settlements_repeated_alone_are_counted_once(fixture: Fixture) {
    let recorder = DebuggingRecorder::new();
    let _recording = metrics::set_default_local_recorder(&recorder);
    fixture.store_many(3).await;
    let mut listener = fixture.listen(3);
    let leases = listener.next_batch(3).await.unwrap();
    let receipt = &leases[0].delivery().receipt;
    fixture.faulty.refuse(receipt, ErrorKind::Internal);
    let acks = futures::future::join_all(leases.into_iter().map(Lease::ack));
    let acked = acks.await.iter().filter(|ack| ack.is_ok()).count();
    assert_eq!(acked, 2);
    let recorded = Recorded::new(&recorder.snapshotter());
    assert_eq!(recorded.sum(names::ACKED, ""), 2.0);
    assert_eq!(recorded.sum(names::SETTLED_LOST, ""), 0.0);
    let errors = recorded.sum(names::STORE_ERRORS, " operation=test kind=internal");
    assert_eq!(errors, 2.0, "of the batch, and of the refused ack alone");
}

/// A subscriber that keeps all spans.
#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<SpanLog>>);

#[derive(Debug, Default)]
struct SpanLog {
    all: Vec<LoggedSpan>,
    entered: Vec<Id>,
}

#[derive(Clone, Debug)]
struct LoggedSpan {
    name: &'static str,
    fields: BTreeMap<String, String>,
}

impl SpanLog {
    fn at(&mut self, id: &Id) -> &mut LoggedSpan {
        &mut self.all[id.into_u64() as usize - 1]
    }
}

impl Spans {
    fn named(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        let all = self.0.lock().unwrap().all.clone();
        let named = all.into_iter().filter(|span| span.name == name);
        named.map(|span| span.fields).collect()
    }

    /// The current span.
    fn current(&self) -> Option<&'static str> {
        let mut log = self.0.lock().unwrap();
        let innermost = log.entered.last()?.clone();
        Some(log.at(&innermost).name)
    }
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("queue_api")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = BTreeMap::new();
        span.record(&mut Fields(&mut fields));
        let mut log = self.0.lock().unwrap();
        let name = span.metadata().name();
        log.all.push(LoggedSpan { name, fields });
        Id::from_u64(log.all.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut log = self.0.lock().unwrap();
        values.record(&mut Fields(&mut log.at(span).fields));
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(span.clone());
    }

    fn exit(&self, span: &Id) {
        assert_eq!(self.0.lock().unwrap().entered.pop().as_ref(), Some(span));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
}

/// Injects one trace context, and keeps the contexts that it is linked to.
#[derive(Debug)]
struct TestPropagator {
    spans: Spans,
    linked: Mutex<Vec<String>>,
}

pub(super) const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

impl Propagator for TestPropagator {
    fn inject(&self, headers: &mut Headers) {
        assert_eq!(self.spans.current(), Some("send"));
        headers.insert(TRACEPARENT.into(), CONTEXT.into());
    }

    fn link(&self, span: &Span, headers: &Headers) {
        assert!(!span.is_none());
        let context = headers[TRACEPARENT].clone();
        self.linked.lock().unwrap().push(context);
    }
}

pub(super) async fn a_trace_goes_from_the_sender_to_the_handler(fixture: Fixture) {
    let spans = Spans::default();
    let _subscriber = subscribe(spans.clone());
    let propagator = Arc::new(TestPropagator {
        spans: spans.clone(),
        linked: Mutex::default(),
    });
    let queue = Queue::new(fixture.queue.backend().clone(), "q").unwrap();
    let queue = queue.with_propagator(propagator.clone());
    let other = CONTEXT.replace("b7ad", "0000");
    queue.enqueue(&msg("m")).await.unwrap();
    let own = msg("own").with_header(TRACEPARENT, other.clone());
    queue.enqueue_batch(&[own, msg("n")]).await.unwrap();

    let mut fixture = fixture;
    fixture.queue = queue;
    let handler_spans = spans.clone();
    let worker = worker(&fixture, move |_: String, _: Context| {
        let current = handler_spans.current();
        async move {
            assert_eq!(current, Some("process"));
            Ok::<_, Failure>(())
        }
    });
    assert_eq!(worker.run_until_idle().await.unwrap().handled, 3);
    let mut linked = propagator.linked.lock().unwrap().clone();
    linked.sort();
    let own_first = [other, CONTEXT.to_owned(), CONTEXT.to_owned()];
    assert_eq!(linked, own_first, "a sender's own context is kept");

    let sent = spans.named("send");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0]["messaging.message.id"], "m");
    assert_eq!(sent[1]["messaging.batch.message_count"], "2");
    let processed = spans.named("process");
    assert_eq!(processed.len(), 3);
    for span in processed {
        assert_eq!(span["messaging.system"], names::SYSTEM);
        assert_eq!(span["messaging.operation.type"], "process");
        assert_eq!(span["messaging.destination.name"], "q");
        assert_eq!(span["otel.kind"], "consumer");
        assert_eq!(span["otel.name"], "process q");
        assert!(span[TRACEPARENT].starts_with("00-0af765"));
    }
}

pub(super) async fn an_invalid_trace_context_is_not_logged(fixture: Fixture) {
    let spans = Spans::default();
    let _subscriber = subscribe(spans.clone());
    for (id, context) in [
        ("a", "forged\nlog line"),
        ("b", "00-XYZ-b7ad6b7169203331-01"),
        ("c", ""),
    ] {
        fixture
            .store(&[msg(id).with_header(TRACEPARENT, context)])
            .await;
    }
    let worker = acking_worker(&fixture);
    assert_eq!(worker.run_until_idle().await.unwrap().handled, 3);
    let processed = spans.named("process");
    assert_eq!(processed.len(), 3);
    let logged = |span: &BTreeMap<_, _>| span.contains_key(TRACEPARENT);
    assert!(!processed.iter().any(logged));
}
