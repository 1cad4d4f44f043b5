//! Q1, S1 and M1: queues as a whole, their counts, and looking after them.

use std::time::Duration;

use queue_api::{
    LeaseAction,
    LeaseOutcome::{Applied, Lost},
    MessageState, Purge, QueueStats, Receipt, Redrive,
};

use crate::bed::{Bed, dead_letter, extend, id_of, ids, msg, nack};

pub(super) async fn queues_do_not_see_each_other(bed: Bed) {
    let other = bed.other_queue("other");
    bed.store(&[msg("same-id")]).await;
    other.store(&[msg("same-id"), msg("more")]).await;
    assert_eq!(bed.lease(10).await.len(), 1);
    assert_eq!(other.stats().await.ready, 2);
    assert_eq!(other.lease(10).await.len(), 2);
    other.store(&[msg("another")]).await;
    assert_eq!(bed.stats().await.ready, 0);
    bed.pass(10_000).await;
    let delivery = bed.lease_one().await;
    bed.ack(&delivery.receipt).await;
    assert_eq!(other.stats().await.ready, 3);
}

/// Names that a prefix, a pattern, a collation or a rule for file names would mix up.
pub(super) async fn queues_of_like_names_are_kept_apart(bed: Bed) {
    let long = "long-".repeat(9);
    let (long_a, long_b) = (format!("{long}a"), format!("{long}b"));
    let alike = [
        "wor", "work", "Work", "w.rk", "work.", "work.er", "work-er", "work_er", "worker",
    ];
    let alike = alike.into_iter().chain([&*long_a, &*long_b]);
    let queues: Vec<_> = alike.map(|name| bed.other_queue(name)).collect();
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

pub(super) async fn a_receipt_is_worth_nothing_elsewhere(bed: Bed) {
    let other = bed.other_queue("other");
    bed.store(&[msg("m")]).await;
    other.store(&[msg("m")]).await;
    let here = bed.lease_one().await;
    let there = other.lease_one().await;
    assert_ne!(here.receipt, there.receipt);
    assert_eq!(other.ack(&here.receipt).await, Lost);
    assert_eq!(bed.change(&there.receipt, nack(0)).await, Lost);
    assert_eq!(bed.ack(&here.receipt).await, Applied);
    assert_eq!(other.ack(&there.receipt).await, Applied);
}

pub(super) async fn an_unused_queue_is_empty(bed: Bed) {
    assert_eq!(bed.stats().await, QueueStats::default());
    bed.expect_none_ready("nothing was enqueued").await;
    let waited = bed.backend().wait(&bed.name, Duration::ZERO).await;
    waited.expect("there is nothing wrong with an empty queue");
    let receipt = Receipt::new("1-m");
    assert_eq!(bed.ack(&receipt).await, Lost);
    assert_eq!(bed.change(&receipt, extend(1)).await, Lost);
}

pub(super) async fn looking_after_an_unused_queue_does_nothing(bed: Bed) {
    assert!(bed.dead_letters().await.is_empty());
    let (admin, name) = (bed.admin(), &bed.name);
    assert!(admin.peek(name, 5).await.expect("peek succeeds").is_empty());
    for what in [Purge::Live, Purge::Dead] {
        assert_eq!(admin.purge(name, what).await.expect("purge succeeds"), 0);
    }
    assert_eq!(
        admin
            .redrive(name, &Redrive::All)
            .await
            .expect("redrive succeeds"),
        0
    );
    admin
        .delete_queue(name)
        .await
        .expect("deleting nothing succeeds");
}

pub(super) async fn stats_follow_every_step(bed: Bed) {
    let expect = async |step: &str, ready, delayed, leased, dead| {
        let stats = bed.stats().await;
        let counts = (stats.ready, stats.delayed, stats.leased, stats.dead);
        assert_eq!(
            counts,
            (ready, delayed, leased, dead),
            "after {step}: {stats:?}"
        );
    };
    bed.store(&[msg("a"), msg("b"), msg("c")]).await;
    bed.store(&[msg("d").with_delay(Duration::from_secs(5))])
        .await;
    expect("enqueueing three and a delayed one", 3, 1, 0, 0).await;
    let leased = bed.lease(2).await;
    expect("leasing two", 1, 1, 2, 0).await;
    bed.change(&leased[0].receipt, nack(7000)).await;
    expect("a nack with delay", 1, 2, 1, 0).await;
    bed.pass(5000).await;
    expect("the delay", 2, 1, 1, 0).await;
    bed.pass(2000).await;
    expect("the nack's delay", 3, 0, 1, 0).await;
    bed.change(&leased[1].receipt, extend(10_000)).await;
    bed.pass(9_999).await;
    expect("almost the extended lease", 3, 0, 1, 0).await;
    bed.pass(1).await;
    expect("the extended lease", 4, 0, 0, 0).await;
    bed.change(&leased[1].receipt, extend(10)).await;
    expect("a late extension", 3, 0, 1, 0).await;
    bed.change(&leased[1].receipt, dead_letter("no")).await;
    expect("a dead letter", 3, 0, 0, 1).await;
    let leased = bed.lease(3).await;
    expect("leasing the rest", 0, 0, 3, 1).await;
    bed.ack(&leased[2].receipt).await;
    expect("an ack", 0, 0, 2, 1).await;
    bed.change(&leased[0].receipt, LeaseAction::Return).await;
    expect("a return", 1, 0, 1, 1).await;
}

pub(super) async fn stats_tell_the_age_of_the_oldest(bed: Bed) {
    let oldest = async || bed.stats().await.oldest_ready.map(|age| age.as_millis());
    assert_eq!(oldest().await, None);
    bed.store(&[msg("late").with_delay(Duration::from_millis(400)), msg("m")])
        .await;
    assert_eq!(oldest().await, Some(0));
    bed.pass(700).await;
    assert_eq!(oldest().await, Some(700));
    bed.lease_for(1, 1000).await;
    assert_eq!(oldest().await, Some(300), "ready since its delay ended");
    bed.lease_for(1, 5000).await;
    assert_eq!(oldest().await, None);
    bed.pass(1250).await;
    assert_eq!(oldest().await, Some(250), "ready since its lease ran out");
    let delivery = bed.lease_one().await;
    bed.pass(30).await;
    bed.change(&delivery.receipt, LeaseAction::Return).await;
    assert_eq!(oldest().await, Some(0), "ready since its return");
}

pub(super) async fn peek_shows_and_changes_nothing(bed: Bed) {
    bed.store(&[
        msg("leased"),
        msg("late").with_delay(Duration::from_secs(60)),
    ])
    .await;
    bed.lease_for(1, 30_000).await;
    bed.pass(1).await;
    bed.store(&[msg("ready").with_header("k", "v"), msg("dead")])
        .await;
    for delivery in bed.lease(2).await {
        let dead = delivery.id.as_str() == "dead";
        let action = if dead { dead_letter("no") } else { nack(0) };
        bed.change(&delivery.receipt, action).await;
    }
    let before = bed.stats().await;
    let seen = bed
        .admin()
        .peek(&bed.name, 10)
        .await
        .expect("peek succeeds");
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
        (bed.now(), bed.now())
    );
    assert_eq!(seen[1].ready_at, bed.now() + Duration::from_millis(29_999));
    assert_eq!(
        bed.admin()
            .peek(&bed.name, 2)
            .await
            .expect("peek succeeds")
            .len(),
        2
    );
    let seen = bed.admin().peek(&bed.name, 0).await;
    assert!(seen.expect("peek succeeds").is_empty(), "0 is no one");
    assert_eq!(bed.stats().await, before);
    assert_eq!(bed.lease_one().await.attempt, 2, "being seen is no attempt");
}

pub(super) async fn peek_tells_the_state_by_the_clock(bed: Bed) {
    let state = async || {
        let seen = bed.admin().peek(&bed.name, 1).await;
        seen.expect("peek succeeds")[0].state
    };
    use MessageState::{Delayed, Leased, Ready};
    bed.store(&[msg("m").with_delay(Duration::from_millis(5))])
        .await;
    assert_eq!(state().await, Delayed);
    bed.pass(5).await;
    assert_eq!(state().await, Ready);
    let delivery = bed.lease_one().await;
    assert_eq!(state().await, Leased);
    bed.pass(10_000).await;
    assert_eq!(state().await, Ready, "its lease ran out");
    bed.change(&delivery.receipt, extend(5)).await;
    assert_eq!(state().await, Leased);
    bed.change(&delivery.receipt, nack(5)).await;
    assert_eq!(state().await, Delayed);
}

pub(super) async fn purge_removes_the_live_alone(bed: Bed) {
    let other = bed.other_queue("other");
    other.store(&[msg("stays")]).await;
    fill_every_state(&bed).await;
    let purge = async || {
        bed.admin()
            .purge(&bed.name, Purge::Live)
            .await
            .expect("purge succeeds")
    };
    assert_eq!(purge().await, 3);
    assert_eq!(purge().await, 0);
    assert_eq!(
        bed.stats().await,
        QueueStats {
            dead: 1,
            ..QueueStats::default()
        }
    );
    bed.pass(3_600_000).await;
    bed.expect_none_ready("the queue was purged").await;
    assert_eq!(other.stats().await.ready, 1);
    bed.store(&[msg("ready")]).await;
    assert_eq!(
        bed.lease_one().await.attempt,
        1,
        "a purged id may be used again"
    );
}

pub(super) async fn purge_removes_the_dead_alone(bed: Bed) {
    let other = bed.other_queue("other");
    fill_every_state(&other).await;
    fill_every_state(&bed).await;
    let purge = async || {
        bed.admin()
            .purge(&bed.name, Purge::Dead)
            .await
            .expect("purge succeeds")
    };
    assert_eq!(purge().await, 1);
    assert_eq!(purge().await, 0);
    let stats = bed.stats().await;
    assert_eq!(
        (stats.ready, stats.delayed, stats.leased, stats.dead),
        (1, 1, 1, 0)
    );
    assert_eq!(other.stats().await.dead, 1);
    bed.store(&[msg("dead")]).await;
}

pub(super) async fn deleting_removes_one_queue(bed: Bed) {
    let other = bed.other_queue("other");
    fill_every_state(&bed).await;
    fill_every_state(&other).await;
    bed.admin()
        .delete_queue(&bed.name)
        .await
        .expect("deleting succeeds");
    bed.admin()
        .delete_queue(&bed.name)
        .await
        .expect("deleting may be repeated");
    assert_eq!(bed.stats().await, QueueStats::default());
    assert_eq!(other.stats().await.dead, 1);
    // The queue is there again as soon as it is used, here and on another connection.
    bed.store(&[msg("dead")]).await;
    assert_eq!(ids(&bed.reconnect().await.lease(10).await), ["dead"]);
}

pub(super) async fn queues_are_listed(bed: Bed) {
    let listed = async || {
        let names = bed.admin().list_queues().await.expect("listing succeeds");
        names
            .into_iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
    };
    assert!(listed().await.is_empty(), "a fresh store has no queues");
    for name in ["zebra", "ant", "mole.1"] {
        bed.other_queue(name).store(&[msg("m")]).await;
    }
    // Dead letters are messages too.
    let ant = bed.other_queue("ant");
    let delivery = ant.lease_one().await;
    ant.change(&delivery.receipt, dead_letter("no")).await;
    assert_eq!(listed().await, ["ant", "mole.1", "zebra"]);
    let mole = bed.other_queue("mole.1");
    mole.admin()
        .delete_queue(&mole.name)
        .await
        .expect("deleting succeeds");
    assert_eq!(listed().await, ["ant", "zebra"]);
}

pub(super) async fn a_receipt_of_a_purged_message_is_lost(bed: Bed) {
    bed.store(&[msg("m")]).await;
    let delivery = bed.lease_one().await;
    bed.admin()
        .purge(&bed.name, Purge::Live)
        .await
        .expect("purge succeeds");
    bed.store(&[msg("m")]).await;
    assert_eq!(bed.ack(&delivery.receipt).await, Lost);
    assert_eq!(bed.change(&delivery.receipt, dead_letter("no")).await, Lost);
    assert_eq!(bed.lease_one().await.id, id_of("m"));
}

/// One message in each state, named after it.
async fn fill_every_state(queue: &crate::bed::OneQueue) {
    queue.store(&[msg("leased"), msg("dead")]).await;
    for delivery in queue.lease(2).await {
        if delivery.id.as_str() == "dead" {
            queue.change(&delivery.receipt, dead_letter("no")).await;
        }
    }
    queue
        .store(&[
            msg("ready"),
            msg("delayed").with_delay(Duration::from_secs(60)),
        ])
        .await;
}
