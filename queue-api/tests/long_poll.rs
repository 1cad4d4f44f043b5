//! Leases that wait, in virtual time.

use std::{future::Future, sync::Arc, time::Duration};

use queue_api::{
    ErrorKind, LeaseOptions, ManualClock, NewMessage, Queue, QueueBackend, Receipt, Result,
};
use queue_memory::MemoryBackend;
use queue_test_support::{Delegated, Fault, Faulty, Operation};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn queue(backend: Arc<dyn QueueBackend>) -> Queue {
    Queue::new(backend, "q").expect("valid")
}

fn counted() -> (Arc<Delegated<Faulty>>, Queue) {
    let backend = Faulty::new(Arc::new(MemoryBackend::new()));
    (backend.clone(), queue(backend))
}

/// Polls `call` once and drops it. It must not have ended.
async fn drop_after_poll(call: impl Future) {
    tokio::select! {
        biased;
        _ = call => panic!("the call has ended"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_is_leased_at_once() -> Result<()> {
    let (backend, queue) = counted();
    queue.enqueue(&NewMessage::new("a")).await?;
    queue.enqueue(&NewMessage::new("b")).await?;
    let start = Instant::now();
    let five = LeaseOptions::new(5);
    let batch = queue.lease_batch_within(&five, Duration::MAX).await?;
    assert_eq!(batch.len(), 2, "it does not wait for five");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(backend.calls(Operation::Wait).len(), 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_the_time_given() -> Result<()> {
    let (backend, queue) = counted();
    for at_most in [0, 1, 7, 20_000].map(Duration::from_millis) {
        let start = Instant::now();
        assert_eq!(queue.lease_within(at_most).await?, None);
        assert_eq!(start.elapsed(), at_most);
    }
    assert_eq!(backend.calls(Operation::Lease).len(), 1 + 3 * 2);
    assert_eq!(backend.calls(Operation::Wait).len(), 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn it_ends_as_soon_as_a_message_is_ready() -> Result<()> {
    let (_, queue) = counted();
    let delayed = NewMessage::new("delayed").with_delay(20 * SECOND);
    queue.enqueue(&delayed).await?;
    let start = Instant::now();
    let leased = queue.lease_within(20 * SECOND).await?.expect("ready");
    assert_eq!(start.elapsed(), 20 * SECOND, "also at the last moment");

    // Here its own lease expires.
    let again = queue.lease_within(Duration::MAX).await?.expect("ready");
    assert_eq!((again.id, again.attempt), (leased.id, 2));

    let waiter = queue.clone();
    let waiting = tokio::spawn(async move { waiter.typed::<u8>().lease_within(SECOND).await });
    tokio::task::yield_now().await;
    let start = Instant::now();
    queue.typed::<u8>().enqueue(&42).await?;
    let leased = waiting.await.expect("no panic")?.expect("a message");
    assert_eq!(leased.expect("it is a number").value, 42);
    assert_eq!(start.elapsed(), Duration::ZERO);
    Ok(())
}

/// Another consumer takes each message between the wake-up and the lease.
#[tokio::test(start_paused = true)]
async fn its_calls_are_few_while_others_are_faster() -> Result<()> {
    let (backend, queue) = counted();
    backend.fault(Operation::Wait, Fault::NoWait);
    let start = Instant::now();
    assert_eq!(queue.lease_within(20 * SECOND).await?, None);
    assert_eq!(start.elapsed(), 20 * SECOND);
    // Eight pauses up to a second, then one at least each half second.
    let leases = backend.calls(Operation::Lease).len();
    assert!(leases <= 2 + 8 + 40, "{leases} lease calls");
    assert!(backend.calls(Operation::Wait).len() <= leases);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_loses_nothing_and_leaves_nothing() -> Result<()> {
    let (backend, queue) = counted();
    drop_after_poll(queue.lease_within(SECOND)).await;
    queue.enqueue(&NewMessage::new("m")).await?;
    let delivery = queue
        .lease()
        .await?
        .expect("the dropped call did not take it");
    assert_eq!(delivery.attempt, 1);
    assert!(queue.release(&delivery.receipt).await?.is_applied());

    // Dropped after the store has leased it.
    backend.hold_answers(Operation::Lease);
    drop_after_poll(queue.lease_within(SECOND)).await;
    backend.release();
    assert_eq!(queue.stats().await?.leased, 1);
    let again = queue
        .lease_within(Duration::MAX)
        .await?
        .expect("it comes back");
    assert_eq!(again.attempt, 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_first_error_ends_it() -> Result<()> {
    let (backend, queue) = counted();
    for operation in [Operation::Lease, Operation::Wait] {
        let start = Instant::now();
        backend.fault_once(operation, Fault::Before(ErrorKind::Unavailable));
        let error = queue.lease_within(SECOND).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    let none = LeaseOptions::new(0);
    let refused = queue.lease_batch_within(&none, SECOND).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    Ok(())
}

/// The time given is tokio's, also if the backend's clock is another one.
#[tokio::test(start_paused = true)]
async fn a_clock_of_a_test_moves_messages_and_not_the_time_given() -> Result<()> {
    let clock = Arc::new(ManualClock::new());
    let queue = queue(Arc::new(MemoryBackend::new().with_clock(clock.clone())));
    let start = Instant::now();
    assert_eq!(queue.lease_within(SECOND).await?, None);
    assert_eq!(start.elapsed(), SECOND);

    queue
        .enqueue(&NewMessage::new("m").with_delay(60 * SECOND))
        .await?;
    let waiter = queue.clone();
    let waiting = tokio::spawn(async move { waiter.lease_within(SECOND).await });
    tokio::task::yield_now().await;
    clock.advance(60 * SECOND);
    let delivery = waiting.await.expect("no panic")?.expect("it is ready");
    assert!(queue.ack(&delivery.receipt).await?.is_applied());
    assert!(!queue.ack(&Receipt::new("x")).await?.is_applied());
    Ok(())
}
