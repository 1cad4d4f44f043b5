//! C1: callers that are dropped at any poll, and runtimes that shut down.

use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    thread,
    time::Duration,
};

use futures::{executor::block_on, poll};
use queue_api::{ErrorKind, LeaseOptions, LeaseOutcome::Applied, QueueStats};
use queue_test_support::{Fault, Operation};
use tokio::runtime::Handle;

use crate::{Fixture, msg, others_run};

/// At whichever poll the call is dropped, its messages are ready afterwards and no attempt counts.
/// Time is paused, so no lease runs out.
#[tokio::test(start_paused = true)]
async fn what_was_leased_for_a_dropped_caller_is_released() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(3).await;
    let options = LeaseOptions::new(2);
    for waits in 0..40 {
        {
            let mut call = pin!(queue.lease_batch(&options));
            assert!(poll!(&mut call).is_pending());
            // The call is not polled any more. Its answer may arrive meanwhile.
            for _ in 0..waits {
                tokio::task::yield_now().await;
            }
        }
        others_run().await;
        let stats = queue.stats().await.unwrap();
        assert_eq!(
            (stats.ready, stats.leased),
            (3, 0),
            "after {waits} polls of others"
        );
    }
    assert!(
        !fixture.faulty.calls(Operation::Change).is_empty(),
        "some were released"
    );
    let leased = queue.lease_batch(&LeaseOptions::new(9)).await.unwrap();
    let attempts: Vec<_> = leased.iter().map(|delivery| delivery.attempt).collect();
    assert_eq!(attempts, [1, 1, 1]);
}

#[tokio::test]
async fn a_call_dropped_before_it_is_sent_is_not_made() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.faulty.hold_calls();
    let enqueue = |id: &str| {
        let (queue, message) = (queue.clone(), msg(id));
        tokio::spawn(async move { queue.enqueue(&message).await })
    };
    let first = enqueue("first");
    others_run().await;
    let (second, third) = (enqueue("second"), enqueue("third"));
    others_run().await;
    second.abort();
    others_run().await;
    fixture.faulty.release();
    first.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(fixture.faulty.calls(Operation::Enqueue), [1, 1]);
    assert_eq!(queue.stats().await.unwrap().ready, 2);
}

#[tokio::test]
async fn the_first_caller_of_a_batch_may_be_dropped() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(3).await;
    fixture.faulty.hold_calls();
    let lease = || {
        let queue = queue.clone();
        tokio::spawn(async move { queue.lease().await })
    };
    let tasks = [lease(), lease(), lease(), lease()];
    others_run().await;
    assert_eq!(
        fixture.faulty.calls(Operation::Lease),
        [4],
        "the call is in flight"
    );
    tasks[0].abort();
    others_run().await;
    fixture.faulty.release();
    let mut leased = Vec::new();
    for task in tasks.into_iter().skip(1) {
        let delivery = task.await.unwrap().unwrap();
        leased.push(delivery.expect("the message of the dropped caller goes to another"));
    }
    for delivery in leased {
        assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
    }
}

#[tokio::test]
async fn an_ack_that_was_sent_is_made_although_its_caller_is_dropped() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(1).await;
    let delivery = queue.lease().await.unwrap().expect("one is ready");
    fixture.faulty.hold_calls();
    let ack = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.ack(&delivery.receipt).await })
    };
    others_run().await;
    ack.abort();
    assert!(ack.await.unwrap_err().is_cancelled());
    assert_eq!(fixture.direct.stats().await.unwrap().leased, 1);
    fixture.faulty.release();
    others_run().await;
    assert_eq!(fixture.direct.stats().await.unwrap(), QueueStats::default());
}

/// The answer is dropped on a thread that has no runtime.
#[test]
fn a_caller_may_be_dropped_outside_its_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    let leasing = queue.clone();
    let mut answered = Box::pin(async move { leasing.lease().await });
    runtime.block_on(async {
        fixture.store(1).await;
        assert!(poll!(&mut answered).is_pending());
        others_run().await;
    });
    assert_eq!(fixture.faulty.calls(Operation::Lease), [1]);
    thread::spawn(move || drop(answered)).join().unwrap();
    runtime.block_on(others_run());
    let stats = runtime.block_on(queue.stats()).unwrap();
    assert_eq!((stats.ready, stats.leased), (1, 0));
}

#[test]
fn a_runtime_that_shuts_down_fails_only_the_calls_in_flight() {
    let new_runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    };
    let (gone, stays) = (new_runtime(), new_runtime());
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.faulty.hold_calls();
    gone.block_on(async {
        let queue = queue.clone();
        tokio::spawn(async move { queue.enqueue(&msg("first")).await });
        others_run().await;
    });
    assert_eq!(
        fixture.faulty.calls(Operation::Enqueue),
        [1],
        "the call is in flight"
    );
    let second = msg("second");
    let mut waits = Box::pin(queue.enqueue(&second));
    stays.block_on(async { assert!(poll!(&mut waits).is_pending()) });
    gone.shutdown_timeout(Duration::from_secs(60));
    let error = stays.block_on(waits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fixture.faulty.release();
    stays.block_on(queue.enqueue(&second)).unwrap();
    let ready = stays.block_on(queue.stats()).unwrap().ready;
    assert_eq!(ready, 1, "the first call ended with its runtime");
}

/// Whether it fills a batch or not.
#[test]
fn a_call_outside_a_runtime_panics_and_later_calls_work() {
    for max_batch in [2, 10] {
        let fixture = Fixture::with_max_batch(max_batch);
        let outside = [msg("a"), msg("b")];
        let call = || block_on(fixture.queue.enqueue_batch(&outside));
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let message = msg("inside");
            let enqueued = fixture.queue.enqueue(&message);
            let answer = tokio::time::timeout(Duration::from_secs(60), enqueued).await;
            let answer = answer.expect("a later call is answered");
            assert!(answer.is_ok(), "max_batch {max_batch}: {answer:?}");
        });
        assert_eq!(fixture.faulty.calls(Operation::Enqueue), [1]);
    }
}

/// A call that hangs would otherwise stay in memory for ever.
#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_when_its_callers_are_gone() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.faulty.fault_once(Operation::Enqueue, Fault::Hangs);
    let (message, minute) = (msg("m"), Duration::from_secs(60));
    let hangs = tokio::time::timeout(minute, queue.enqueue(&message));
    assert!(hangs.await.is_err());
    let tasks = Handle::current().metrics();
    assert_eq!(
        tasks.num_alive_tasks(),
        1,
        "it goes on beside the next call"
    );
    assert!(queue.enqueue(&message).await.is_ok());
    assert!(tokio::time::timeout(minute, pending::<()>()).await.is_err());
    assert_eq!(tasks.num_alive_tasks(), 0);
}

#[test]
fn a_call_in_a_runtime_without_timers_panics_and_later_calls_work() {
    let fixture = Fixture::with_max_batch(10);
    let without = tokio::runtime::Builder::new_current_thread();
    let without = { without }.build().unwrap();
    let message = msg("a");
    let call = || without.block_on(fixture.queue.enqueue(&message));
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    assert!(runtime.block_on(fixture.queue.enqueue(&message)).is_ok());
}
