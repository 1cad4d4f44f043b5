//! Each sentence of the documentation of `EnqueueAll`.

use std::{
    num::NonZeroUsize,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt, Stream, StreamExt, poll,
    stream::{self, poll_fn},
};
use queue_api::{
    EnqueueOutcome, Error, ErrorKind, Limits, MessageId, NewMessage, Queue, QueueBackend, Result,
};
use queue_memory::MemoryBackend;
use queue_test_support::{Delegate, Delegated, Fault, Faulty, Operation};
use tokio::sync::mpsc;

/// Batches of 3.
#[derive(Debug)]
struct Small(Arc<Delegated<Faulty>>);

impl Delegate for Small {
    type Inner = Delegated<Faulty>;

    fn inner(&self) -> &Delegated<Faulty> {
        &self.0
    }

    fn limits(&self) -> Limits {
        Limits::STANDARD
            .with_max_batch(NonZeroUsize::new(3).expect("not zero"))
            .with_max_delay(Duration::from_secs(60))
    }
}

fn small() -> (Arc<Delegated<Faulty>>, Queue) {
    let faulty = Faulty::new(Arc::new(MemoryBackend::new()));
    let backend = Arc::new(Delegated(Small(faulty.clone())));
    (faulty, Queue::new(backend, "q").expect("valid"))
}

fn standard() -> (Arc<Delegated<Faulty>>, Queue) {
    let faulty = Faulty::new(Arc::new(MemoryBackend::new()));
    (faulty.clone(), Queue::new(faulty, "q").expect("valid"))
}

fn numbered(n: usize) -> NewMessage {
    let id = MessageId::new(&format!("m{n}")).expect("valid");
    NewMessage::new("").with_id(id)
}

/// Counts the messages that are taken.
fn counting(taken: &Arc<AtomicUsize>) -> impl Stream<Item = NewMessage> + Unpin + use<> {
    let taken = taken.clone();
    stream::iter(0..).map(move |n| {
        taken.fetch_add(1, Ordering::Relaxed);
        numbered(n)
    })
}

fn id_of(result: Result<queue_api::Enqueued, queue_api::FailedBatch>) -> String {
    result.expect("stored").id.to_string()
}

#[tokio::test]
async fn outcomes_come_in_order_and_batches_are_full_by_count() {
    let (backend, queue) = small();
    queue.enqueue(&numbered(1)).await.expect("stored");
    let all = queue.enqueue_all(stream::iter((0..7).map(numbered)));
    let outcomes: Vec<_> = all.map(|result| result.expect("stored")).collect().await;
    for (n, enqueued) in outcomes.iter().enumerate() {
        let outcome = match n {
            1 => EnqueueOutcome::Duplicate,
            _ => EnqueueOutcome::Stored,
        };
        let expected = (numbered(n).id, outcome);
        assert_eq!((enqueued.id.clone(), enqueued.outcome), expected);
    }
    assert_eq!(backend.calls(Operation::Enqueue), [1, 3, 3, 1]);
    assert_eq!(queue.enqueue_all(stream::empty()).count().await, 0);
}

#[tokio::test]
async fn batches_are_full_by_bytes_and_a_larger_message_is_alone() {
    let (backend, queue) = standard();
    let sizes = [1 << 20, 3 << 20, 1 << 20, 5 << 20, 1, 1, (4 << 20) - 50, 60];
    let messages = sizes.map(|size| NewMessage::new(vec![0; size]));
    let outcomes: Vec<_> = queue.enqueue_all(stream::iter(messages)).collect().await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(backend.calls(Operation::Enqueue), [1, 1, 1, 1, 2, 1, 1]);
}

#[tokio::test]
async fn what_is_ready_is_sent_at_once_and_never_ready_sends_nothing() {
    let (backend, queue) = small();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut all = queue.enqueue_all(poll_fn(move |cx| receiver.poll_recv(cx)));
    assert!(all.next().now_or_never().is_none());
    assert!(backend.calls(Operation::Enqueue).is_empty());

    sender.send(numbered(0)).expect("open");
    sender.send(numbered(1)).expect("open");
    assert_eq!(all.next().await.map(id_of), Some("m0".into()));
    assert_eq!(all.next().await.map(id_of), Some("m1".into()));
    assert!(all.next().now_or_never().is_none());
    assert_eq!(backend.calls(Operation::Enqueue), [2]);

    // It is woken by the inner stream.
    let waiting = tokio::spawn(async move { all.next().await.map(id_of) });
    tokio::task::yield_now().await;
    sender.send(numbered(2)).expect("open");
    assert_eq!(waiting.await.expect("no panic"), Some("m2".into()));
}

#[tokio::test]
async fn an_endless_stream_is_taken_one_batch_at_a_time() {
    let (backend, queue) = small();
    let taken = Arc::new(AtomicUsize::new(0));
    let mut all = queue.enqueue_all(counting(&taken));
    assert_eq!(taken.load(Ordering::Relaxed), 0, "nothing before a poll");
    for n in 0..30 {
        assert_eq!(all.next().await.map(id_of), Some(format!("m{n}")));
        let ahead = taken.load(Ordering::Relaxed) - n;
        assert!(ahead <= 3, "{ahead} messages ahead");
    }
    // While a batch is in flight, nothing more is taken.
    backend.hold_calls();
    assert!(all.next().now_or_never().is_none());
    assert!(all.next().now_or_never().is_none());
    assert_eq!(taken.load(Ordering::Relaxed), 33);
    // The future of `next` was dropped twice; nothing is lost.
    backend.release();
    assert_eq!(all.next().await.map(id_of), Some("m30".into()));
    assert_eq!(backend.calls(Operation::Enqueue).len(), 11);
}

#[tokio::test]
async fn an_error_hands_back_its_messages_and_the_next_poll_goes_on() {
    for fault in [
        Fault::Before(ErrorKind::Unavailable),
        Fault::After(ErrorKind::TimedOut),
    ] {
        let (backend, queue) = small();
        let queue = queue.with_default_max_attempts(7).expect("valid");
        let mut all = queue.enqueue_all(stream::iter((0..7).map(numbered)));
        for _ in 0..3 {
            all.next().await.expect("seven").expect("stored");
        }
        backend.fault_once(Operation::Enqueue, fault);
        let failed = all.next().await.expect("seven").expect_err("it fails");
        let ids: Vec<_> = failed.messages.iter().map(|m| m.id.as_str()).collect();
        assert_eq!(ids, ["m3", "m4", "m5"]);
        assert_eq!(failed.messages[0].max_attempts, Some(7));
        assert_eq!(all.next().await.map(id_of), Some("m6".into()));
        assert!(all.next().await.is_none());

        queue.enqueue_batch(&failed.messages).await.expect("stored");
        assert_eq!(queue.stats().await.expect("counted").ready, 7);
        let error = Error::from(failed);
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn an_invalid_message_fails_alone_and_in_order() {
    let (backend, queue) = small();
    let invalid = |n| numbered(n).with_max_attempts(0);
    let messages = [numbered(0), invalid(1), invalid(2), numbered(3), invalid(4)];
    let all = queue.enqueue_all(stream::iter(messages));
    let results: Vec<_> = all.collect().await;
    let seen = results.into_iter().map(|result| match result {
        Ok(enqueued) => enqueued.id.to_string(),
        Err(failed) => {
            assert_eq!(failed.error.kind(), ErrorKind::InvalidInput);
            assert_eq!(failed.messages.len(), 1);
            format!("{} is invalid", failed.messages[0].id)
        }
    });
    let expected = [
        "m0",
        "m1 is invalid",
        "m2 is invalid",
        "m3",
        "m4 is invalid",
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert_eq!(backend.calls(Operation::Enqueue), [1, 1]);

    // What the defaults make of a message counts.
    let queue = queue
        .with_default_delay(Duration::from_secs(60))
        .expect("valid");
    let mut all = queue.enqueue_all(stream::iter([numbered(9)]));
    all.next().await.expect("one").expect("stored");
    assert_eq!(queue.stats().await.expect("counted").delayed, 1);
}

#[tokio::test]
async fn a_dropped_stream_leaves_its_batch_stored_or_not() {
    for (is_stored, hold) in [(0, true), (3, false)] {
        let (backend, queue) = small();
        let mut all = queue.enqueue_all(stream::iter((0..9).map(numbered)));
        for _ in 0..3 {
            all.next().await.expect("nine").expect("stored");
        }
        match hold {
            true => backend.hold_calls(),
            false => backend.hold_answers(Operation::Enqueue),
        }
        assert!(all.next().now_or_never().is_none());
        drop(all);
        backend.release();
        let ready = queue.stats().await.expect("counted").ready;
        assert_eq!(
            ready,
            3 + is_stored,
            "whose outcome was seen, and the batch"
        );
    }
}

/// Returns three messages and panics.
struct Panicking(usize);

impl Stream for Panicking {
    type Item = NewMessage;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<NewMessage>> {
        self.0 += 1;
        assert!(self.0 <= 2, "the stream's own panic");
        Poll::Ready(Some(numbered(self.0)))
    }
}

#[tokio::test]
async fn a_panic_of_the_stream_loses_nothing_that_came_before() {
    let (_, queue) = small();
    let mut all = queue.enqueue_all(Panicking(0));
    let panic = AssertUnwindSafe(all.next()).catch_unwind().await;
    assert_eq!(
        panic.expect_err("it reaches the caller").downcast_ref(),
        Some(&"the stream's own panic")
    );
    assert_eq!(all.next().await.map(id_of), Some("m1".into()));
    assert_eq!(all.next().await.map(id_of), Some("m2".into()));
    assert!(all.next().await.is_none(), "it is not polled again");
}

#[tokio::test]
async fn a_panic_of_the_backend_is_that_of_one_batch() {
    let (backend, queue) = small();
    backend.fault_once(Operation::Enqueue, Fault::Panics);
    let mut all = queue.enqueue_all(stream::iter((0..5).map(numbered)));
    let panic = AssertUnwindSafe(all.next()).catch_unwind().await;
    panic.expect_err("it reaches the caller");
    assert_eq!(all.next().await.map(id_of), Some("m3".into()));
    assert_eq!(all.next().await.map(id_of), Some("m4".into()));
    assert!(all.next().await.is_none());
}

/// A stream that must not be moved, and one that goes to another task.
#[tokio::test]
async fn any_stream_will_do() {
    let (_, queue) = small();
    let stream = stream::once(async {
        tokio::task::yield_now().await;
        numbered(0)
    });
    let mut all = pin!(queue.enqueue_all(stream));
    assert!(poll!(StreamExt::next(&mut all)).is_pending());
    assert_eq!(
        StreamExt::next(&mut all).await.map(id_of),
        Some("m0".into())
    );

    let all = queue.enqueue_all(stream::iter((1..9).map(numbered)));
    let count = tokio::spawn(all.count()).await.expect("no panic");
    assert_eq!(count, 8);
    let backend: &Arc<dyn QueueBackend> = queue.backend();
    assert_eq!(backend.limits().max_batch.get(), 3);
}
