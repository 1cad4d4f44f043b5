//! Tasks that lease and ack in turn keep sharing calls.

use queue_api::{LeaseOptions, LeaseOutcome::Applied, LeaseOutcome::Lost, Receipt};
use queue_test_support::Operation;

use crate::{Fixture, others_run};

/// Half of the tasks get the answers to their acks while the other half is about to lease.
#[tokio::test]
async fn a_lease_waits_for_the_acks_in_flight() {
    const TASKS: usize = 16;
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(3 * TASKS).await;
    let leased = queue.lease_batch(&LeaseOptions::new(TASKS)).await.unwrap();
    others_run().await;
    fixture.faulty.hold_calls();
    let ack_and_lease = leased.into_iter().map(|delivery| {
        let queue = queue.clone();
        tokio::spawn(async move {
            assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
            queue.lease().await
        })
    });
    let mut tasks: Vec<_> = ack_and_lease.collect();
    others_run().await;
    assert_eq!(
        fixture.faulty.calls(Operation::Ack),
        [TASKS],
        "the acks are in flight"
    );
    let lease = (0..TASKS / 2).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.lease().await })
    });
    tasks.extend(lease);
    others_run().await;
    assert_eq!(
        fixture.faulty.calls(Operation::Lease),
        [TASKS],
        "the next lease waits"
    );
    fixture.faulty.release();
    for task in tasks {
        assert!(task.await.unwrap().unwrap().is_some(), "enough are ready");
    }
    assert_eq!(
        fixture.faulty.calls(Operation::Lease),
        [TASKS, TASKS + TASKS / 2]
    );
}

#[tokio::test]
async fn endless_acks_do_not_block_a_lease() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(1).await;
    let ackers = [0, 1, 2].map(|turns| {
        let queue = queue.clone();
        tokio::spawn(async move {
            loop {
                let outcome = queue.ack(&Receipt::new("unknown")).await;
                assert_eq!(outcome.unwrap(), Lost);
                // The tasks run out of step, so one of them is always waiting.
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
    assert!(lease.is_finished(), "it waits for one batch of acks");
    assert!(lease.await.unwrap().unwrap().is_some());
    for acker in ackers {
        acker.abort();
    }
}

/// Tasks that call a little later still join the batch.
#[tokio::test]
async fn late_calls_join_the_batch() {
    const TASKS: usize = 64;
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(TASKS).await;
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
    assert_eq!(fixture.faulty.calls(Operation::Lease), [TASKS]);
    assert_eq!(fixture.faulty.calls(Operation::Ack), [TASKS]);
}
