//! How many calls there are, who is in which, and what each is told.

use std::{collections::BTreeSet, time::Duration};

use futures::future::{join_all, try_join_all};
use queue_api::{
    EnqueueOutcome::{Duplicate, Stored},
    LeaseOptions,
    LeaseOutcome::{Applied, Lost},
    NewMessage, QueueStats,
};

use crate::{backend::Watched, msg, others_run, store};

#[tokio::test]
async fn calls_of_the_same_moment_are_one() {
    let backend = Watched::new();
    let queue = backend.batching();
    let messages: Vec<_> = (0..256).map(|n| msg(&format!("m{n:03}"))).collect();
    let stored = try_join_all(messages.iter().map(|m| queue.enqueue(m))).await;
    assert_eq!(stored.unwrap(), [Stored; 256]);
    let leased = try_join_all((0..256).map(|_| queue.lease())).await.unwrap();
    let leased: Vec<_> = leased.into_iter().flatten().collect();
    let ids: BTreeSet<_> = leased.iter().map(|delivery| delivery.id.clone()).collect();
    assert_eq!(ids.len(), 256, "each is leased by one caller");
    let minute = Duration::from_secs(60);
    let extended = leased.iter().map(|d| queue.extend(&d.receipt, minute));
    assert_eq!(try_join_all(extended).await.unwrap(), [Applied; 256]);
    let acked = leased.iter().map(|d| queue.ack(&d.receipt));
    assert_eq!(try_join_all(acked).await.unwrap(), [Applied; 256]);
    for operation in ["enqueue", "lease", "change", "ack"] {
        assert_eq!(backend.sizes(operation), [256], "{operation}");
    }
}

/// Each works through messages one by one, on threads of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_go_on_calling_keep_sharing() {
    const TASKS: usize = 256;
    let backend = Watched::new();
    let queue = backend.batching();
    let tasks = (0..TASKS).map(|task| {
        let queue = queue.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let id = format!("m{task}.{round}");
                assert_eq!(queue.enqueue(&msg(&id)).await.unwrap(), Stored);
                // One for each: whoever leases has stored one that nobody leased for it.
                let delivery = queue.lease().await.unwrap().expect("enough are ready");
                assert_eq!(delivery.attempt, 1, "{} came to two", delivery.id);
                assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
            }
        })
    });
    for ended in join_all(tasks).await {
        ended.expect("no task panics");
    }
    assert_eq!(queue.stats().await.unwrap(), QueueStats::default());
    for operation in ["enqueue", "lease", "ack"] {
        let sizes = backend.sizes(operation);
        assert_eq!(sizes.iter().sum::<usize>(), TASKS * 20, "{operation}");
        let calls = sizes.len();
        assert!(calls <= TASKS * 20 / 4, "{calls} calls of {operation}");
    }
}

#[tokio::test]
async fn what_comes_during_a_call_goes_in_the_next() {
    let backend = Watched::new();
    let queue = backend.batching();
    backend.hold();
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
    assert_eq!(backend.sizes("enqueue"), [1], "the others gather");
    backend.release();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Stored);
    }
    assert_eq!(backend.sizes("enqueue"), [1, 100]);
}

#[tokio::test]
async fn a_caller_alone_is_given_all_it_asks_for() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&queue, 10).await;
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
async fn whoever_comes_first_is_given_first() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), 6).await;
    let wishes = [2, 3, 3, 1].map(LeaseOptions::new);
    let given = try_join_all(wishes.iter().map(|wish| queue.lease_batch(wish))).await;
    let given: Vec<_> = given.unwrap().iter().map(Vec::len).collect();
    assert_eq!(given, [2, 3, 1, 0]);
    assert_eq!(backend.sizes("lease"), [9]);
}

#[tokio::test]
async fn another_visibility_timeout_is_another_call() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&backend.bare(), 4).await;
    let wish = |secs| LeaseOptions::new(1).with_visibility_timeout(Duration::from_secs(secs));
    let wishes = [wish(5), wish(7), LeaseOptions::new(1), wish(7)];
    let leased = try_join_all(wishes.iter().map(|wish| queue.lease_batch(wish))).await;
    let leased = leased.unwrap().into_iter().flatten();
    let timeouts: Vec<_> = leased.map(|d| d.visibility_timeout.as_secs()).collect();
    assert_eq!(timeouts, [5, 7, 30, 7]);
    let mut sizes = backend.sizes("lease");
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 2]);
}

#[tokio::test]
async fn two_with_one_receipt_or_one_id_are_told_apart() {
    let backend = Watched::new();
    let queue = backend.batching();
    let (first, second) = (msg("m"), NewMessage::new("another").with_id(msg("m").id));
    let stored = tokio::join!(queue.enqueue(&first), queue.enqueue(&second));
    assert_eq!((stored.0.unwrap(), stored.1.unwrap()), (Stored, Duplicate));
    let delivery = queue.lease().await.unwrap().expect("one is ready");
    assert_eq!(delivery.payload, "m");
    let receipt = &delivery.receipt;
    let acked = tokio::join!(queue.ack(receipt), queue.ack(receipt));
    assert_eq!((acked.0.unwrap(), acked.1.unwrap()), (Applied, Lost));
    assert_eq!(backend.sizes("enqueue"), [2]);
    assert_eq!(backend.sizes("ack"), [2]);
}

#[tokio::test]
async fn a_full_batch_waits_for_nobody() {
    let backend = Watched::with_batches_of(10);
    let queue = backend.batching();
    backend.hold();
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
    // "d" would not have fitted with the two before it, and "e" not with it.
    assert_eq!(backend.sizes("enqueue"), [1, 9, 2, 10]);
    tasks.push(enqueue(4, "f"));
    others_run().await;
    assert_eq!(backend.sizes("enqueue").len(), 4, "not full, so it waits");
    backend.release();
    for task in tasks {
        assert!(task.await.unwrap().unwrap().iter().all(|o| *o == Stored));
    }
    assert_eq!(backend.sizes("enqueue"), [1, 9, 2, 10, 4]);
}

#[tokio::test]
async fn heavy_messages_are_not_gathered_without_end() {
    const HEAVY: usize = 3 << 20;
    let backend = Watched::new();
    let queue = backend.batching();
    let messages: Vec<_> = (0..4).map(|_| NewMessage::new(vec![0; HEAVY])).collect();
    let stored = try_join_all(messages.iter().map(|m| queue.enqueue(m))).await;
    assert_eq!(stored.unwrap(), [Stored; 4]);
    assert_eq!(backend.sizes("enqueue"), [1; 4]);
}

#[tokio::test]
async fn queues_do_not_wait_for_each_other() {
    let backend = Watched::new();
    let queue = backend.batching();
    let other = queue_api::Queue::new(queue.backend().clone(), "other").unwrap();
    backend.hold();
    let tasks = [queue.clone(), other]
        .map(|queue| tokio::spawn(async move { queue.enqueue(&msg("m")).await }));
    others_run().await;
    assert_eq!(backend.sizes("enqueue"), [1, 1]);
    backend.release();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Stored);
    }
}

#[tokio::test]
async fn waits_and_stats_are_passed_on() {
    let backend = Watched::new();
    let queue = backend.batching();
    store(&queue, 1).await;
    queue.wait(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().ready, 1);
    assert_eq!(
        backend.sizes("wait").len() + backend.sizes("stats").len(),
        2
    );
}
