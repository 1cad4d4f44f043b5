//! Q1, S1 and M1: separate queues, stats and admin calls.

use std::time::Duration;

use queue_api::{
    ErrorKind, LeaseAction, LeaseChange, LeaseOptions,
    LeaseOutcome::{Applied, Lost},
    MessageState, NewMessage, PageOptions, Purge, QueueName, QueueStats, Receipt, Redrive,
};
use tokio::task::JoinSet;

use crate::{
    fixture::{Fixture, OneQueue, dead_letter, extend, id_of, ids, msg, nack, receipts},
    panic_location::{called_from_here, caught},
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

pub(super) async fn admin_calls_on_an_unused_queue_do_nothing(fixture: Fixture) {
    assert!(fixture.all_dead_letters().await.is_empty());
    assert!(fixture.peek(5).await.is_empty());
    for what in [Purge::Live, Purge::Dead] {
        assert_eq!(fixture.purge(what).await, 0);
    }
    assert_eq!(fixture.redrive(&Redrive::All).await, 0);
    fixture.delete().await;
}

pub(super) async fn stats_are_exact_after_every_step(fixture: Fixture) {
    let expect = async |step: &str, ready, delayed, leased, dead| {
        let stats = fixture.stats().await;
        let counts = (stats.ready, stats.delayed, stats.leased, stats.dead);
        assert_eq!(
            counts,
            (ready, delayed, leased, dead),
            "after {step}: {stats:?}"
        );
    };
    fixture.store(&[msg("a"), msg("b"), msg("c")]).await;
    fixture
        .store(&[msg("d").with_delay(Duration::from_secs(5))])
        .await;
    expect("enqueueing three and a delayed one", 3, 1, 0, 0).await;
    let leased = fixture.lease(2).await;
    expect("leasing two", 1, 1, 2, 0).await;
    assert!(
        fixture
            .change(&leased[0].receipt, nack(7000))
            .await
            .is_applied()
    );
    expect("a nack with delay", 1, 2, 1, 0).await;
    fixture.pass(5000).await;
    expect("the delay", 2, 1, 1, 0).await;
    fixture.pass(2000).await;
    expect("the nack's delay", 3, 0, 1, 0).await;
    assert!(
        fixture
            .change(&leased[1].receipt, extend(10_000))
            .await
            .is_applied()
    );
    fixture.pass(9_999).await;
    expect("almost the extended lease", 3, 0, 1, 0).await;
    fixture.pass(1).await;
    expect("the extended lease", 4, 0, 0, 0).await;
    assert!(
        fixture
            .change(&leased[1].receipt, extend(10))
            .await
            .is_applied()
    );
    expect("a late extension", 3, 0, 1, 0).await;
    assert!(
        fixture
            .change(&leased[1].receipt, dead_letter("no"))
            .await
            .is_applied()
    );
    expect("a dead letter", 3, 0, 0, 1).await;
    let leased = fixture.lease(3).await;
    expect("leasing the rest", 0, 0, 3, 1).await;
    assert!(fixture.ack(&leased[2].receipt).await.is_applied());
    expect("an ack", 0, 0, 2, 1).await;
    assert!(
        fixture
            .change(&leased[0].receipt, LeaseAction::Release)
            .await
            .is_applied()
    );
    expect("a release", 1, 0, 1, 1).await;
}

pub(super) async fn stats_report_the_age_of_the_oldest(fixture: Fixture) {
    let oldest = async || {
        fixture
            .stats()
            .await
            .oldest_ready
            .map(|age| age.as_millis())
    };
    assert_eq!(oldest().await, None);
    fixture
        .store(&[msg("late").with_delay(Duration::from_millis(400)), msg("m")])
        .await;
    assert_eq!(oldest().await, Some(0));
    fixture.pass(700).await;
    assert_eq!(oldest().await, Some(700));
    fixture.lease_for(1, 1000).await;
    assert_eq!(
        oldest().await,
        Some(300),
        "ready since the end of its delay"
    );
    fixture.lease_for(1, 5000).await;
    assert_eq!(oldest().await, None);
    fixture.pass(1250).await;
    assert_eq!(oldest().await, Some(250), "ready since its lease expired");
    let delivery = fixture.lease_one().await;
    fixture.pass(30).await;
    assert!(
        fixture
            .change(&delivery.receipt, LeaseAction::Release)
            .await
            .is_applied()
    );
    assert_eq!(oldest().await, Some(0), "ready since its release");
}

pub(super) async fn peek_changes_nothing(fixture: Fixture) {
    fixture
        .store(&[
            msg("leased"),
            msg("late").with_delay(Duration::from_secs(60)),
        ])
        .await;
    fixture.lease_for(1, 30_000).await;
    fixture.pass(1).await;
    fixture
        .store(&[msg("ready").with_header("k", "v"), msg("dead")])
        .await;
    for delivery in fixture.lease(2).await {
        let dead = delivery.id.as_str() == "dead";
        let action = if dead { dead_letter("no") } else { nack(0) };
        assert!(fixture.change(&delivery.receipt, action).await.is_applied());
    }
    let before = fixture.stats().await;
    let seen = fixture.peek(10).await;
    let shown: Vec<_> = seen
        .iter()
        .map(|m| (m.id.as_str(), m.state, m.attempts))
        .collect();
    use MessageState::{Delayed, Leased, Ready};
    assert_eq!(
        shown,
        [
            ("ready", Ready, 1),
            ("leased", Leased, 1),
            ("late", Delayed, 0)
        ]
    );
    assert_eq!(seen[0].payload, "ready");
    assert_eq!(seen[0].headers["k"], "v");
    assert_eq!(
        (seen[0].enqueued_at, seen[0].ready_at),
        (fixture.now(), fixture.now())
    );
    assert_eq!(
        seen[1].ready_at,
        fixture.now() + Duration::from_millis(29_999)
    );
    assert_eq!(fixture.peek(2).await.len(), 2);
    assert!(fixture.peek(0).await.is_empty(), "max is 0");
    assert_eq!(fixture.stats().await, before);
    assert_eq!(
        fixture.lease_one().await.attempt,
        2,
        "a peek is not an attempt"
    );
}

pub(super) async fn peek_shows_the_state_at_this_time(fixture: Fixture) {
    let state = async || fixture.peek(1).await[0].state;
    use MessageState::{Delayed, Leased, Ready};
    fixture
        .store(&[msg("m").with_delay(Duration::from_millis(5))])
        .await;
    assert_eq!(state().await, Delayed);
    fixture.pass(5).await;
    assert_eq!(state().await, Ready);
    let delivery = fixture.lease_one().await;
    assert_eq!(state().await, Leased);
    fixture.pass(10_000).await;
    assert_eq!(state().await, Ready, "its lease has expired");
    assert!(
        fixture
            .change(&delivery.receipt, extend(5))
            .await
            .is_applied()
    );
    assert_eq!(state().await, Leased);
    assert!(
        fixture
            .change(&delivery.receipt, nack(5))
            .await
            .is_applied()
    );
    assert_eq!(state().await, Delayed);
}

pub(super) async fn purge_live_leaves_dead_letters(fixture: Fixture) {
    let other = fixture.other_queue("other");
    other.store(&[msg("stays")]).await;
    fill_every_state(&fixture).await;
    assert_eq!(fixture.purge(Purge::Live).await, 3);
    assert_eq!(fixture.purge(Purge::Live).await, 0);
    assert_eq!(fixture.stats().await, QueueStats::default().with_dead(1));
    fixture.pass(3_600_000).await;
    fixture.expect_none_ready("the queue was purged").await;
    assert_eq!(other.stats().await.ready, 1);
    fixture.store(&[msg("ready")]).await;
    assert_eq!(
        fixture.lease_one().await.attempt,
        1,
        "a purged id may be used again"
    );
}

/// In real time, because a purge may tell old messages from new ones by the time of their enqueue.
pub(super) async fn purge_ends_while_producers_go_on(fixture: Fixture) {
    let delayed = msg("delayed").with_delay(Duration::from_secs(3600));
    fixture.store(&[msg("leased"), delayed]).await;
    let delivery = fixture.lease_one().await;
    fixture.store(&[msg("ready")]).await;
    // The new messages are later than these.
    fixture.pass(5).await;
    let mut producers = JoinSet::new();
    for _ in 0..4 {
        let producer = fixture.reconnect().await;
        let batch = producer.backend().limits().max_batch.get().min(1000);
        producers.spawn(caught(async move {
            loop {
                let messages = (0..batch).map(|_| NewMessage::new(""));
                producer.store(&messages.collect::<Vec<_>>()).await;
                // A backend in memory would otherwise be filled faster than it can be emptied.
                breathe().await;
            }
        }));
    }
    // They have begun.
    while fixture.stats().await.ready < 2 {
        breathe().await;
    }
    fixture.purge(Purge::Live).await;
    producers.shutdown().await;
    assert_eq!(fixture.ack(&delivery.receipt).await, Lost);
    fixture
        .store(&["ready", "delayed", "leased"].map(msg))
        .await;
}

#[allow(clippy::disallowed_methods)] // in real time
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

pub(super) async fn purge_dead_leaves_live_messages(fixture: Fixture) {
    let other = fixture.other_queue("other");
    fill_every_state(&other).await;
    fill_every_state(&fixture).await;
    assert_eq!(fixture.purge(Purge::Dead).await, 1);
    assert_eq!(fixture.purge(Purge::Dead).await, 0);
    let stats = fixture.stats().await;
    assert_eq!(
        (stats.ready, stats.delayed, stats.leased, stats.dead),
        (1, 1, 1, 0)
    );
    assert_eq!(other.stats().await.dead, 1);
    fixture.store(&[msg("dead")]).await;
}

pub(super) async fn deleting_removes_one_queue(fixture: Fixture) {
    let other = fixture.other_queue("other");
    fill_every_state(&fixture).await;
    fill_every_state(&other).await;
    fixture.delete().await;
    fixture.delete().await;
    assert_eq!(fixture.stats().await, QueueStats::default());
    assert_eq!(other.stats().await.dead, 1);
    // The queue exists again as soon as it is used, also on another connection.
    fixture.store(&[msg("dead")]).await;
    assert_eq!(ids(&fixture.reconnect().await.lease(10).await), ["dead"]);
}

pub(super) async fn queues_are_listed(fixture: Fixture) {
    let listed = async || {
        let names = fixture
            .admin()
            .list_queues()
            .await
            .expect("listing succeeds");
        names
            .into_iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
    };
    assert!(listed().await.is_empty(), "a fresh store has no queues");
    for name in ["zebra", "ant", "mole.1"] {
        fixture.other_queue(name).store(&[msg("m")]).await;
    }
    // Dead letters are messages too.
    let ant = fixture.other_queue("ant");
    let delivery = ant.lease_one().await;
    assert!(
        ant.change(&delivery.receipt, dead_letter("no"))
            .await
            .is_applied()
    );
    assert_eq!(listed().await, ["ant", "mole.1", "zebra"]);
    fixture.other_queue("mole.1").delete().await;
    assert_eq!(listed().await, ["ant", "zebra"]);
}

pub(super) async fn a_receipt_of_a_purged_message_is_lost(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    fixture.purge(Purge::Live).await;
    fixture.store(&[msg("m")]).await;
    assert_eq!(fixture.ack(&delivery.receipt).await, Lost);
    assert_eq!(
        fixture.change(&delivery.receipt, dead_letter("no")).await,
        Lost
    );
    assert_eq!(fixture.lease_one().await.id, id_of("m"));
}

/// Stores one message in each state. Its id is the name of the state.
async fn fill_every_state(queue: &crate::fixture::OneQueue) {
    queue.store(&[msg("leased"), msg("dead")]).await;
    for delivery in queue.lease(2).await {
        if delivery.id.as_str() == "dead" {
            assert!(
                queue
                    .change(&delivery.receipt, dead_letter("no"))
                    .await
                    .is_applied()
            );
        }
    }
    queue
        .store(&[
            msg("ready"),
            msg("delayed").with_delay(Duration::from_secs(60)),
        ])
        .await;
}
