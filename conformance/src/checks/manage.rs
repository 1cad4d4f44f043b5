//! S1 and M1: stats and admin calls.

use std::{fmt::Debug, time::Duration};

use queue_api::{
    ErrorKind, LeaseAction, LeaseOutcome::Lost, MessageState, NewMessage, Purge, QueueStats,
    Redrive,
};
use tokio::task::JoinSet;

use crate::{
    fixture::{Fixture, dead_letter, extend, id_of, ids, msg, nack},
    panic_location::caught,
};

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

pub(super) async fn admin_calls_on_an_unused_queue_do_nothing(fixture: Fixture) {
    assert!(fixture.all_dead_letters().await.is_empty());
    assert!(fixture.peek(5).await.is_empty());
    for what in [Purge::Live, Purge::Dead] {
        assert_eq!(fixture.purge(what).await, 0);
    }
    assert_eq!(fixture.redrive(&Redrive::All).await, 0);
    fixture.delete().await;
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
    let ready = msg("ready").with_header("k", "v").with_max_attempts(7);
    fixture.store(&[ready, msg("dead")]).await;
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
        (seen[0].max_attempts, seen[0].visibility_timeout),
        (7, Duration::from_secs(10))
    );
    assert_eq!(
        (seen[0].enqueued_at, seen[0].ready_at),
        (fixture.now(), fixture.now())
    );
    assert_eq!(
        seen[1].ready_at,
        fixture.now() + Duration::from_millis(29_999)
    );
    assert_eq!(fixture.peek(2).await, seen[..2], "the first of them");
    // The contract does not say what 0 returns, but the call must not panic.
    let none = fixture.admin().peek(&fixture.name, 0).await;
    expect_none_or_refused(none);
    assert_eq!(fixture.stats().await, before);
    assert_eq!(
        fixture.lease_one().await.attempt,
        2,
        "a peek is not an attempt"
    );
}

/// The handles never ask for 0, so a backend may refuse that.
pub(super) fn expect_none_or_refused<T: Debug>(answer: queue_api::Result<Vec<T>>) {
    match answer {
        Ok(listed) => assert!(listed.is_empty(), "0 were asked for: {listed:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}"),
    }
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
    fixture.fill_every_state().await;
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
        if let Some(ended) = producers.try_join_next() {
            let ended: Result<(), _> = ended.expect("panics are caught");
            ended.unwrap_or_else(|panic| panic.resume());
        }
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
    other.fill_every_state().await;
    fixture.fill_every_state().await;
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
    fixture.fill_every_state().await;
    other.fill_every_state().await;
    fixture.delete().await;
    fixture.delete().await;
    assert_eq!(fixture.stats().await, QueueStats::default());
    assert_eq!(other.stats().await.dead, 1);
    // The queue exists again as soon as it is used, also on another connection.
    fixture.store(&[msg("dead")]).await;
    assert_eq!(ids(&fixture.reconnect().await.lease(10).await), ["dead"]);
}

pub(super) async fn queues_are_listed(fixture: Fixture) {
    fixture.expect_queues(&[]).await;
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
    fixture.expect_queues(&["ant", "mole.1", "zebra"]).await;
    fixture.other_queue("mole.1").delete().await;
    fixture.expect_queues(&["ant", "zebra"]).await;
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
