//! Tasks that lease and ack in turn: that they stay together.

use queue_api::{LeaseOptions, LeaseOutcome::Applied, LeaseOutcome::Lost, Receipt};

use crate::{backend::Watched, others_run, store};

/// Half of them are told of their acks while the other half is about to lease.
#[tokio::test]
async fn a_lease_waits_for_the_acks_under_way() {
    const TASKS: usize = 16;
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), 3 * TASKS).await;
    let leased = queue.lease_batch(&LeaseOptions::new(TASKS)).await.unwrap();
    others_run().await;
    backend.hold();
    let ack_and_lease = leased.into_iter().map(|delivery| {
        let queue = queue.clone();
        tokio::spawn(async move {
            assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
            queue.lease().await
        })
    });
    let mut tasks: Vec<_> = ack_and_lease.collect();
    others_run().await;
    assert_eq!(backend.sizes("ack"), [TASKS], "they are under way");
    let lease = (0..TASKS / 2).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.lease().await })
    });
    tasks.extend(lease);
    others_run().await;
    assert_eq!(backend.sizes("lease"), [TASKS], "the next waits");
    backend.release();
    for task in tasks {
        assert!(task.await.unwrap().unwrap().is_some(), "enough are ready");
    }
    assert_eq!(backend.sizes("lease"), [TASKS, TASKS + TASKS / 2]);
}

#[tokio::test]
async fn acks_without_end_keep_nobody_from_leasing() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), 1).await;
    let ackers = [0, 1, 2].map(|turns| {
        let queue = queue.clone();
        tokio::spawn(async move {
            loop {
                let outcome = queue.ack(&Receipt::new("nobody's")).await;
                assert_eq!(outcome.unwrap(), Lost);
                // Out of step with each other, so that there is always one that waits.
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    others_run().await;
    let leasing = queue.clone();
    let lease = tokio::spawn(async move { leasing.lease().await });
    for _ in 0..20 {
        others_run().await;
    }
    assert!(
        lease.is_finished(),
        "it waits for one batch of acks, not for all"
    );
    assert!(lease.await.unwrap().unwrap().is_some());
    for acker in ackers {
        acker.abort();
    }
}

/// Who is answered later than others joins them all the same.
#[tokio::test]
async fn stragglers_join() {
    const TASKS: usize = 64;
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), TASKS).await;
    let tasks = (0..TASKS).map(|task| {
        let queue = queue.clone();
        tokio::spawn(async move {
            for _ in 0..task {
                tokio::task::yield_now().await;
            }
            let delivery = queue.lease().await.unwrap().expect("one for each");
            for _ in 0..task {
                tokio::task::yield_now().await;
            }
            assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(backend.sizes("lease"), [TASKS]);
    assert_eq!(backend.sizes("ack"), [TASKS]);
}
