//! A handle's calls in a transaction: they can be spawned, they count and carry the trace context,
//! and they need a transaction.

use std::sync::{Arc, Mutex};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use mongodb::{ClientSession, event::command::CommandEvent};
use mongodb_test_server::documentdb::Engines;
use queue_api::{
    EnqueueOutcome, Error, ErrorKind, Headers, LeaseOutcome, Queue, QueueTransaction, Receipt,
    metrics as names,
    trace::{Propagator, TRACEPARENT},
};
use queue_docdb::{DocDbBackend, InTransaction};

use crate::fixture::{Fixture, MINUTE, TRANSACTIONAL, lease, message, name, queue_of};

tests! {
    on_one_thread:
        every_call_can_be_made_by_a_spawned_task,
        calls_count_and_complete_messages_as_outside,
        a_forgotten_start_of_a_transaction_is_refused_before_anything_is_sent
}

async fn fixture() -> Fixture {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    fixture.backend.prepare(&name()).await.unwrap();
    fixture
}

async fn begun(backend: &DocDbBackend) -> ClientSession {
    let mut session = backend.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    session
}

/// An application does this in a handler, which is a task.
async fn every_call_can_be_made_by_a_spawned_task() {
    let fixture = fixture().await;
    fixture.queue().enqueue(&message("a")).await.unwrap();
    let receipt = lease(&fixture.queue(), 1).await.remove(0).receipt;
    let (backend, queue) = (fixture.backend.clone(), fixture.queue());
    let work = async move {
        let mut session = begun(&backend).await;
        let mut transaction = backend.in_transaction(&mut session);
        let acked = queue.ack_in(&mut transaction, &[receipt]).await.unwrap();
        assert_eq!(acked, [LeaseOutcome::Applied]);
        let stored = queue.enqueue_in(&mut transaction, &[message("b")]).await;
        assert_eq!(stored.unwrap(), [EnqueueOutcome::Stored]);
        // Without the handle, too.
        let again = transaction.enqueue(&name(), &[message("b")]).await.unwrap();
        assert_eq!(again, [EnqueueOutcome::Duplicate]);
        assert_eq!(transaction.ack(&name(), &[]).await.unwrap(), []);
        session.commit_transaction().await.unwrap();
        backend.prepare(&name()).await.unwrap();
    };
    tokio::spawn(work).await.unwrap();
    assert_eq!(lease(&fixture.queue(), 9).await[0].id.as_str(), "b");
}

/// Writes a trace context, whatever the current span is.
#[derive(Debug)]
struct Sender;

const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

impl Propagator for Sender {
    fn inject(&self, headers: &mut Headers) {
        headers.insert(TRACEPARENT.to_owned(), CONTEXT.to_owned());
    }

    fn link(&self, _: &tracing::Span, _: &Headers) {}
}

async fn calls_count_and_complete_messages_as_outside() {
    let fixture = fixture().await;
    let queue = fixture.queue().with_propagator(Arc::new(Sender));
    let queue = queue.with_default_visibility_timeout(3 * MINUTE).unwrap();
    queue.enqueue(&message("a")).await.unwrap();
    let receipt = lease(&queue, 1).await.remove(0).receipt;

    let recorder = DebuggingRecorder::new();
    let recording = metrics::set_default_local_recorder(&recorder);
    let mut session = begun(&fixture.backend).await;
    let mut transaction = fixture.backend.in_transaction(&mut session);
    let receipts = [receipt, Receipt::new("made up")];
    queue.ack_in(&mut transaction, &receipts).await.unwrap();
    let messages = ["b", "c", "b"].map(message);
    queue.enqueue_in(&mut transaction, &messages).await.unwrap();
    session.commit_transaction().await.unwrap();
    drop(recording);

    let mut counted: Vec<(String, u64)> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) => Some((key.key().name().to_owned(), count)),
            _ => None,
        })
        .collect();
    counted.sort();
    let mut expected = [
        (names::ENQUEUED, 2),
        (names::DUPLICATES, 1),
        (names::ACKED, 1),
        (names::SETTLED_LOST, 1),
    ]
    .map(|(name, count)| (name.to_owned(), count));
    expected.sort();
    assert_eq!(counted, expected);
    for delivery in lease(&queue, 9).await {
        let context = delivery.headers.get(TRACEPARENT);
        assert_eq!(context.map(String::as_str), Some(CONTEXT));
        assert_eq!(delivery.visibility_timeout, 3 * MINUTE);
    }
}

/// What a session without a transaction was through.
const BEFORE: [&str; 5] = [
    "nothing",
    "a commit",
    "an abort",
    "an empty commit",
    "a snapshot session",
];

async fn without_a_transaction(
    backend: &DocDbBackend,
    queue: &Queue,
    before: &str,
) -> ClientSession {
    let mut session = match before {
        "a snapshot session" => {
            let session = backend.client().start_session().snapshot(true);
            return session.await.unwrap();
        }
        _ => backend.start_session().await.unwrap(),
    };
    if before == "nothing" {
        return session;
    }
    session.start_transaction().await.unwrap();
    if before != "an empty commit" {
        let mut transaction = backend.in_transaction(&mut session);
        let sent = [message(before)];
        queue.enqueue_in(&mut transaction, &sent).await.unwrap();
    }
    match before {
        "an abort" => session.abort_transaction().await.unwrap(),
        _ => session.commit_transaction().await.unwrap(),
    }
    session
}

fn assert_refused<T: std::fmt::Debug>(before: &str, answer: Result<T, Error>) {
    let error = answer.expect_err(before);
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{before}: {error:?}");
    assert!(
        error.to_string().contains("start_transaction"),
        "{before}: {error}"
    );
}

async fn a_forgotten_start_of_a_transaction_is_refused_before_anything_is_sent() {
    let fixture = fixture().await;
    let sent = Arc::<Mutex<Vec<String>>>::default();
    let seen = sent.clone();
    let watched = fixture.watched(move |event| {
        if let CommandEvent::Started(started) = event {
            seen.lock().unwrap().push(started.command_name.clone());
        }
    });
    let backend = watched.connect().await.unwrap();
    let queue = queue_of(&backend);
    queue.enqueue(&message("a")).await.unwrap();
    let receipt = lease(&queue, 1).await.remove(0).receipt;
    for before in BEFORE {
        let mut session = without_a_transaction(&backend, &queue, before).await;
        sent.lock().unwrap().clear();
        let mut transaction: InTransaction<'_> = backend.in_transaction(&mut session);
        let lost = [message("lost")];
        let enqueued = queue.enqueue_in(&mut transaction, &lost).await;
        assert_refused(before, enqueued);
        let acked = queue
            .ack_in(&mut transaction, std::slice::from_ref(&receipt))
            .await;
        assert_refused(before, acked);
        assert_eq!(*sent.lock().unwrap(), [""; 0], "{before}");
        // What the application may do next still works.
        match before {
            "a commit" | "an empty commit" => session.commit_transaction().await.unwrap(),
            "a snapshot session" => {}
            _ => session.start_transaction().await.unwrap(),
        }
    }
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.ready, stats.leased), (1, 1), "what was committed");
}
