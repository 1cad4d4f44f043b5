//! C1: callers that are dropped, at every poll, and runtimes that end.

use std::{pin::pin, thread, time::Duration};

use futures::poll;
use queue_api::{ErrorKind, LeaseOptions, LeaseOutcome::Applied, QueueStats};

use crate::{backend::Watched, msg, others_run, store};

/// Whatever the poll at which it is dropped, its messages are ready afterwards, and no attempt
/// is counted. The clock stands still, so none of them has come back by itself.
#[tokio::test(start_paused = true)]
async fn what_a_dropped_caller_was_given_is_given_back() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), 3).await;
    let wish = LeaseOptions::new(2);
    for waits in 0..40 {
        {
            let mut call = pin!(queue.lease_batch(&wish));
            assert!(poll!(&mut call).is_pending());
            // Nobody polls it any more; its answer comes meanwhile, or has come.
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
    assert!(!backend.sizes("change").is_empty(), "some were given back");
    let leased = queue.lease_batch(&LeaseOptions::new(9)).await.unwrap();
    let attempts: Vec<_> = leased.iter().map(|delivery| delivery.attempt).collect();
    assert_eq!(attempts, [1, 1, 1]);
}

#[tokio::test]
async fn a_caller_that_is_dropped_before_its_turn_is_left_out() {
    let backend = Watched::new();
    let queue = backend.batching();
    backend.hold();
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
    backend.release();
    first.await.unwrap().unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(backend.sizes("enqueue"), [1, 1]);
    assert_eq!(queue.stats().await.unwrap().ready, 2);
}

#[tokio::test]
async fn whoever_began_a_shared_call_may_go() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), 3).await;
    backend.hold();
    let lease = || {
        let queue = queue.clone();
        tokio::spawn(async move { queue.lease().await })
    };
    let tasks = [lease(), lease(), lease(), lease()];
    others_run().await;
    assert_eq!(backend.sizes("lease"), [4], "it is under way");
    tasks[0].abort();
    others_run().await;
    backend.release();
    let mut given = Vec::new();
    for task in tasks.into_iter().skip(1) {
        let delivery = task.await.unwrap().unwrap();
        given.push(delivery.expect("the share of the one who is gone goes round"));
    }
    for delivery in given {
        assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
    }
}

#[tokio::test]
async fn an_ack_that_was_sent_is_made_although_its_caller_is_gone() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), 1).await;
    let delivery = queue.lease().await.unwrap().expect("one is ready");
    backend.hold();
    let ack = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.ack(&delivery.receipt).await })
    };
    others_run().await;
    ack.abort();
    assert!(ack.await.unwrap_err().is_cancelled());
    assert_eq!(backend.bare().stats().await.unwrap().leased, 1);
    backend.release();
    others_run().await;
    assert_eq!(backend.bare().stats().await.unwrap(), QueueStats::default());
}

/// What was given is dropped on a thread that has no runtime.
#[test]
fn a_caller_may_be_dropped_outside_of_its_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let backend = Watched::new();
    let queue = backend.batching();
    let leasing = queue.clone();
    let mut answered = Box::pin(async move { leasing.lease().await });
    runtime.block_on(async {
        store(&backend.bare(), 1).await;
        assert!(poll!(&mut answered).is_pending());
        others_run().await;
    });
    assert_eq!(backend.sizes("lease"), [1]);
    thread::spawn(move || drop(answered)).join().unwrap();
    runtime.block_on(others_run());
    let stats = runtime.block_on(queue.stats()).unwrap();
    assert_eq!((stats.ready, stats.leased), (1, 0));
}

#[test]
fn a_runtime_that_ends_under_a_call_ends_nothing_else() {
    let new_runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    };
    let (gone, stays) = (new_runtime(), new_runtime());
    let backend = Watched::new();
    let queue = backend.batching();
    backend.hold();
    gone.block_on(async {
        let queue = queue.clone();
        tokio::spawn(async move { queue.enqueue(&msg("first")).await });
        others_run().await;
    });
    assert_eq!(backend.sizes("enqueue"), [1], "it is under way");
    let second = msg("second");
    let mut waits = Box::pin(queue.enqueue(&second));
    stays.block_on(async { assert!(poll!(&mut waits).is_pending()) });
    gone.shutdown_timeout(Duration::from_secs(60));
    let error = stays.block_on(waits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    backend.release();
    stays.block_on(queue.enqueue(&second)).unwrap();
    let ready = stays.block_on(queue.stats()).unwrap().ready;
    assert_eq!(ready, 1, "the first went down with its runtime");
}
