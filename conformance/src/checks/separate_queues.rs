//! Q1: queues do not affect each other, whatever their names are.

use std::time::Duration;

use queue_api::{
    ErrorKind, LeaseChange, LeaseOptions,
    LeaseOutcome::{Applied, Lost},
    PageOptions, Purge, QueueName, QueueStats, Receipt, Redrive,
};

use crate::{
    fixture::{Fixture, OneQueue, extend, id_of, ids, msg, nack, receipts},
    panic_location::called_from_here,
};

pub(super) async fn queues_are_separate(fixture: Fixture) {
    let other = fixture.other_queue("other");
    fixture.store(&[msg("same-id")]).await;
    other.store(&[msg("same-id"), msg("more")]).await;
    assert_eq!(fixture.lease(10).await.len(), 1);
    assert_eq!(other.stats().await.ready, 2);
    assert_eq!(other.lease(10).await.len(), 2);
    other.store(&[msg("another")]).await;
    assert_eq!(fixture.stats().await.ready, 0);
    fixture.pass(10_000).await;
    let delivery = fixture.lease_one().await;
    assert!(fixture.ack(&delivery.receipt).await.is_applied());
    assert_eq!(other.stats().await.ready, 3);
}

/// Names that are easily confused: by a prefix, a pattern, a collation or a file system.
pub(super) async fn queues_with_similar_names_are_separate(fixture: Fixture) {
    let long = "long-".repeat(9);
    let (long_a, long_b) = (format!("{long}a"), format!("{long}b"));
    let alike = [
        "wor", "work", "Work", "w.rk", "work.", "work.er", "work-er", "work_er", "worker",
    ];
    let alike = alike.into_iter().chain([&*long_a, &*long_b]);
    let queues: Vec<_> = alike.map(|name| fixture.other_queue(name)).collect();
    for queue in &queues {
        let name = queue.name.as_str();
        assert_eq!(queue.stats().await, QueueStats::default(), "{name}");
        queue.store(&[msg(name)]).await;
    }
    for queue in &queues {
        assert_eq!(queue.stats().await.ready, 1, "{}", queue.name);
        assert_eq!(ids(&queue.lease(10).await), [queue.name.as_str()]);
    }
}

/// An administrator's call means one name, not a pattern or a prefix.
pub(super) async fn admin_calls_spare_queues_with_similar_names(fixture: Fixture) {
    let alike = [
        "aXb", "a.b", "a-b", "A_B", "ab", "a_", "a_b_", "a_b.c", "xa_b",
    ];
    let alike = alike.map(|name| fixture.other_queue(name));
    for queue in &alike {
        queue.fill_every_state().await;
    }
    let queue = fixture.other_queue("a_b");
    let spared = async |call: &str| {
        for other in &alike {
            let stats = other.stats().await;
            let counts = (stats.ready, stats.delayed, stats.leased, stats.dead);
            assert_eq!(counts, (1, 1, 1, 1), "{} after {call} of a_b", other.name);
        }
    };
    queue.fill_every_state().await;
    assert_eq!(queue.redrive(&Redrive::Ids(vec![id_of("dead")])).await, 1);
    spared("redrive by id").await;
    queue.delete().await;
    spared("delete").await;
    queue.fill_every_state().await;
    assert_eq!(queue.redrive(&Redrive::All).await, 1);
    spared("redrive").await;
    assert_eq!(queue.purge(Purge::Live).await, 4);
    spared("purge of live messages").await;
    queue.fill_every_state().await;
    assert_eq!(queue.purge(Purge::Dead).await, 1);
    spared("purge of dead letters").await;
}

/// Names that some stores reserve, misread or take for something else.
const ODD_NAMES: [&str; 22] = [
    "system",
    "system.users",
    "system.",
    "a.system.b",
    "a.system",
    "admin",
    "local",
    "config",
    "oplog.rs",
    "fs.files",
    "sqlite_master",
    "index",
    "select",
    "null",
    "con",
    "nul.txt",
    "0",
    "1e5",
    "a..b",
    "a.",
    "a--",
    "queue.queue",
];

/// A store that cannot have a queue of some name says so in every call. It never says that the
/// queue is empty.
pub(super) async fn an_odd_name_works_or_is_refused_by_every_call(fixture: Fixture) {
    let long = "l".repeat(QueueName::MAX_BYTES);
    let mut works = Vec::new();
    for name in ODD_NAMES.into_iter().chain([&*long]) {
        let queue = fixture.other_queue(name);
        let enqueued = queue.backend().enqueue(&queue.name, &[msg("m")]).await;
        let errors = called_from_here(errors_of_all_calls(&queue)).await;
        let Err(error) = enqueued else {
            for (call, error) in errors {
                assert!(error.is_none(), "{name}, {call}: {error:?}");
            }
            queue.store(&[msg("n")]).await;
            assert_eq!(queue.stats().await.ready, 1, "{name}");
            let end = if name.ends_with('0') { "1" } else { "0" };
            let near = fixture.other_queue(&format!("{}{end}", &name[..name.len() - 1]));
            let seen = near.stats().await;
            assert_eq!(seen, QueueStats::default(), "{name} and {}", near.name);
            let delivery = queue.lease_one().await;
            assert_eq!(queue.ack(&delivery.receipt).await, Applied, "{name}");
            assert_eq!(queue.stats().await, QueueStats::default(), "{name}");
            works.push(queue);
            continue;
        };
        let all = errors.into_iter().chain([("enqueue", Some(error))]);
        for (call, error) in all {
            let kind = error.as_ref().map(queue_api::Error::kind);
            assert_eq!(
                kind,
                Some(ErrorKind::InvalidInput),
                "{name}, {call}: {error:?}"
            );
        }
    }
    if fixture.has_admin() {
        for queue in &works {
            queue.store(&[msg("m")]).await;
        }
        let listed = fixture.admin().list_queues().await;
        let listed = listed.expect("list_queues succeeds");
        for OneQueue { name, .. } in &works {
            assert!(listed.contains(name), "{name} is not in {listed:?}");
        }
    }
}

/// The error of each call on this queue, if there is one. The last calls empty the queue.
async fn errors_of_all_calls(queue: &OneQueue) -> Vec<(&'static str, Option<queue_api::Error>)> {
    let (backend, name) = (queue.backend(), &queue.name);
    let receipt = Receipt::new("1-m");
    let change = LeaseChange::nack(receipt.clone(), Duration::ZERO);
    let mut errors = vec![
        ("stats", backend.stats(name).await.err()),
        ("wait", backend.wait(name, Duration::ZERO).await.err()),
        ("ack", backend.ack(name, &[receipt]).await.err()),
        ("change", backend.change(name, &[change]).await.err()),
    ];
    if queue.has_admin() {
        let (admin, page) = (queue.admin(), PageOptions::new(1));
        errors.extend([
            ("peek", admin.peek(name, 1).await.err()),
            ("messages", admin.messages(name, &page).await.err()),
            ("dead_letters", admin.dead_letters(name, &page).await.err()),
            ("redrive", admin.redrive(name, &Redrive::All).await.err()),
            ("purge", admin.purge(name, Purge::Dead).await.err()),
            ("delete_queue", admin.delete_queue(name).await.err()),
        ]);
    }
    let leased = backend.lease(name, &LeaseOptions::new(1)).await;
    match leased {
        Ok(deliveries) => {
            queue.ack_all(&receipts(deliveries)).await;
        }
        Err(error) => errors.push(("lease", Some(error))),
    }
    errors
}

pub(super) async fn a_receipt_is_lost_in_another_queue(fixture: Fixture) {
    let other = fixture.other_queue("other");
    fixture.store(&[msg("m")]).await;
    other.store(&[msg("m")]).await;
    let here = fixture.lease_one().await;
    let there = other.lease_one().await;
    assert_ne!(here.receipt, there.receipt);
    assert_eq!(other.ack(&here.receipt).await, Lost);
    assert_eq!(fixture.change(&there.receipt, nack(0)).await, Lost);
    assert_eq!(fixture.ack(&here.receipt).await, Applied);
    assert_eq!(other.ack(&there.receipt).await, Applied);
}

pub(super) async fn an_unused_queue_is_empty(fixture: Fixture) {
    assert_eq!(fixture.stats().await, QueueStats::default());
    fixture.expect_none_ready("nothing was enqueued").await;
    let waited = fixture.backend().wait(&fixture.name, Duration::ZERO).await;
    waited.expect("an empty queue is not an error");
    let receipt = Receipt::new("1-m");
    assert_eq!(fixture.ack(&receipt).await, Lost);
    assert_eq!(fixture.change(&receipt, extend(1)).await, Lost);
}
