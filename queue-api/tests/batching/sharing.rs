//! How many calls there are, what is in each, and what each caller gets.

use std::{collections::BTreeSet, time::Duration};

use futures::future::{join_all, try_join_all};
use queue_api::{
    EnqueueOutcome::{Duplicate, Stored},
    LeaseOptions,
    LeaseOutcome::{Applied, Lost},
    NewMessage, QueueStats,
};
use queue_test_support::Operation;

use crate::{Fixture, msg, others_run};

#[tokio::test]
async fn concurrent_calls_are_one_batch() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    let messages: Vec<_> = (0..256).map(|n| msg(&format!("m{n:03}"))).collect();
    let stored = try_join_all(messages.iter().map(|m| queue.enqueue(m))).await;
    assert_eq!(stored.unwrap(), [Stored; 256]);
    let leased = try_join_all((0..256).map(|_| queue.lease())).await.unwrap();
    let leased: Vec<_> = leased.into_iter().flatten().collect();
    let ids: BTreeSet<_> = leased.iter().map(|delivery| delivery.id.clone()).collect();
    assert_eq!(ids.len(), 256, "each goes to one caller");
    let minute = Duration::from_secs(60);
    let extended = leased.iter().map(|d| queue.extend(&d.receipt, minute));
    assert_eq!(try_join_all(extended).await.unwrap(), [Applied; 256]);
    let acked = leased.iter().map(|d| queue.ack(&d.receipt));
    assert_eq!(try_join_all(acked).await.unwrap(), [Applied; 256]);
    for operation in [
        Operation::Enqueue,
        Operation::Lease,
        Operation::Change,
        Operation::Ack,
    ] {
        assert_eq!(fixture.faulty.calls(operation), [256], "{operation:?}");
    }
}

/// Each task handles messages one by one, on two threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_keep_calling_keep_sharing() {
    const TASKS: usize = 256;
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    let tasks = (0..TASKS).map(|task| {
        let queue = queue.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let id = format!("m{task}.{round}");
                assert_eq!(queue.enqueue(&msg(&id)).await.unwrap(), Stored);
                // Each task stored a message before it leases one.
                let delivery = queue.lease().await.unwrap().expect("enough are ready");
                assert_eq!(delivery.attempt, 1, "{} was delivered twice", delivery.id);
                assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
            }
        })
    });
    for ended in join_all(tasks).await {
        ended.expect("no task panics");
    }
    assert_eq!(queue.stats().await.unwrap(), QueueStats::default());
    for operation in [Operation::Enqueue, Operation::Lease, Operation::Ack] {
        let sizes = fixture.faulty.calls(operation);
        assert_eq!(sizes.iter().sum::<usize>(), TASKS * 20, "{operation:?}");
        let calls = sizes.len();
        assert!(calls <= TASKS * 20 / 4, "{calls} calls of {operation:?}");
    }
}

#[tokio::test]
async fn what_arrives_during_a_call_goes_in_the_next() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.faulty.hold_calls();
    let mut tasks = Vec::new();
    for n in 0..=100 {
        let queue = queue.clone();
        let enqueue = async move { queue.enqueue(&msg(&format!("m{n}"))).await };
        tasks.push(tokio::spawn(enqueue));
        if n == 0 {
            others_run().await;
        }
    }
    others_run().await;
    assert_eq!(
        fixture.faulty.calls(Operation::Enqueue),
        [1],
        "the others wait"
    );
    fixture.faulty.release();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Stored);
    }
    assert_eq!(fixture.faulty.calls(Operation::Enqueue), [1, 100]);
}

#[tokio::test]
async fn a_single_caller_gets_all_it_asks_for() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(10).await;
    assert_eq!(
        queue
            .lease_batch(&LeaseOptions::new(4))
            .await
            .unwrap()
            .len(),
        4
    );
    assert_eq!(
        queue
            .lease_batch(&LeaseOptions::new(100))
            .await
            .unwrap()
            .len(),
        6
    );
    assert!(queue.lease().await.unwrap().is_none());
}

#[tokio::test]
async fn messages_go_to_the_earliest_callers_first() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(6).await;
    let options = [2, 3, 3, 1].map(LeaseOptions::new);
    let counts = try_join_all(options.iter().map(|options| queue.lease_batch(options))).await;
    let counts: Vec<_> = counts.unwrap().iter().map(Vec::len).collect();
    assert_eq!(counts, [2, 3, 1, 0]);
    assert_eq!(fixture.faulty.calls(Operation::Lease), [9]);
}

#[tokio::test]
async fn each_visibility_timeout_has_its_own_call() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(4).await;
    let with_timeout =
        |secs| LeaseOptions::new(1).with_visibility_timeout(Duration::from_secs(secs));
    let options = [
        with_timeout(5),
        with_timeout(7),
        LeaseOptions::new(1),
        with_timeout(7),
    ];
    let leased = try_join_all(options.iter().map(|options| queue.lease_batch(options))).await;
    let leased = leased.unwrap().into_iter().flatten();
    let timeouts: Vec<_> = leased.map(|d| d.visibility_timeout.as_secs()).collect();
    assert_eq!(timeouts, [5, 7, 30, 7]);
    let mut sizes = fixture.faulty.calls(Operation::Lease);
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 2]);
}

#[tokio::test]
async fn callers_of_one_call_share_messages_of_no_time() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(5).await;
    let two = LeaseOptions::new(2).with_visibility_timeout(Duration::ZERO);
    let leased = join_all([&two; 3].map(|options| queue.lease_batch(options))).await;
    let leased: Vec<_> = leased.into_iter().flat_map(Result::unwrap).collect();
    let ids: BTreeSet<_> = leased.iter().map(|each| each.id.as_str()).collect();
    assert_eq!((ids.len(), leased.len()), (5, 5));
    assert_eq!(fixture.faulty.calls(Operation::Lease), [6]);
    let receipts: Vec<_> = leased.into_iter().map(|each| each.receipt).collect();
    assert_eq!(queue.ack_batch(&receipts).await.unwrap(), [Applied; 5]);
}

#[tokio::test]
async fn equal_ids_and_receipts_get_their_own_outcomes() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    let (first, second) = (msg("m"), NewMessage::new("another").with_id(msg("m").id));
    let stored = tokio::join!(queue.enqueue(&first), queue.enqueue(&second));
    assert_eq!((stored.0.unwrap(), stored.1.unwrap()), (Stored, Duplicate));
    let delivery = queue.lease().await.unwrap().expect("one is ready");
    assert_eq!(delivery.payload, "m");
    let receipt = &delivery.receipt;
    let acked = tokio::join!(queue.ack(receipt), queue.ack(receipt));
    assert_eq!((acked.0.unwrap(), acked.1.unwrap()), (Applied, Lost));
    assert_eq!(fixture.faulty.calls(Operation::Enqueue), [2]);
    assert_eq!(fixture.faulty.calls(Operation::Ack), [2]);
}

#[tokio::test]
async fn a_full_batch_goes_at_once() {
    let fixture = Fixture::with_max_batch(10);
    let queue = fixture.queue.clone();
    fixture.faulty.hold_calls();
    let enqueue = |count: usize, name: &str| {
        let messages: Vec<_> = (0..count).map(|n| msg(&format!("{name}{n}"))).collect();
        let queue = queue.clone();
        tokio::spawn(async move { queue.enqueue_batch(&messages).await })
    };
    let mut tasks = vec![enqueue(1, "a")];
    others_run().await;
    tasks.extend([
        enqueue(6, "b"),
        enqueue(3, "c"),
        enqueue(2, "d"),
        enqueue(10, "e"),
    ]);
    others_run().await;
    // "d" does not fit with "b" and "c", and "e" does not fit with "d".
    assert_eq!(fixture.faulty.calls(Operation::Enqueue), [1, 9, 2, 10]);
    tasks.push(enqueue(4, "f"));
    others_run().await;
    assert_eq!(
        fixture.faulty.calls(Operation::Enqueue).len(),
        4,
        "it is not full, so it waits"
    );
    fixture.faulty.release();
    for task in tasks {
        assert!(task.await.unwrap().unwrap().iter().all(|o| *o == Stored));
    }
    assert_eq!(fixture.faulty.calls(Operation::Enqueue), [1, 9, 2, 10, 4]);
}

#[tokio::test]
async fn large_messages_are_not_batched() {
    const LARGE: usize = 3 << 20;
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    let messages: Vec<_> = (0..4).map(|_| NewMessage::new(vec![0; LARGE])).collect();
    let stored = try_join_all(messages.iter().map(|m| queue.enqueue(m))).await;
    assert_eq!(stored.unwrap(), [Stored; 4]);
    assert_eq!(fixture.faulty.calls(Operation::Enqueue), [1; 4]);
}

#[tokio::test]
async fn queues_do_not_wait_for_each_other() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    let other = queue_api::Queue::new(queue.backend().clone(), "other").unwrap();
    fixture.faulty.hold_calls();
    let tasks = [queue.clone(), other]
        .map(|queue| tokio::spawn(async move { queue.enqueue(&msg("m")).await }));
    others_run().await;
    assert_eq!(fixture.faulty.calls(Operation::Enqueue), [1, 1]);
    fixture.faulty.release();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Stored);
    }
}

#[tokio::test]
async fn waits_and_stats_are_forwarded() {
    let fixture = Fixture::new();
    let queue = fixture.queue.clone();
    fixture.store(1).await;
    queue.wait(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().ready, 1);
    assert_eq!(
        fixture.faulty.calls(Operation::Wait).len() + fixture.faulty.calls(Operation::Stats).len(),
        2
    );
}
