//! D1: what becomes of a message that nobody can handle.

use std::{collections::BTreeSet, time::Duration};

use queue_api::{
    DeadLetterPage, DeadReason, LeaseChange,
    LeaseOutcome::{Applied, Lost},
    Purge, QueueStats, Redrive,
};

use crate::bed::{Bed, dead_letter, extend, id_of, ids, msg, nack};

pub(super) async fn after_max_attempts_it_is_buried_not_delivered(bed: Bed) {
    bed.store(&[msg("m").with_max_attempts(3)]).await;
    for attempt in 1..=3 {
        let delivery = bed.lease_one().await;
        assert_eq!((delivery.attempt, delivery.max_attempts), (attempt, 3));
        if attempt == 2 {
            bed.change(&delivery.receipt, nack(0)).await;
        } else {
            bed.pass(10_000).await;
        }
    }
    let stats = bed.stats().await;
    assert_eq!(
        (stats.ready, stats.dead),
        (1, 0),
        "it is buried by the lease call that meets it"
    );
    bed.expect_none_ready("three attempts were allowed").await;
    let stats = bed.stats().await;
    assert_eq!((stats.ready, stats.dead), (0, 1));
    bed.pass(3_600_000).await;
    bed.expect_none_ready("a dead letter stays dead").await;
}

pub(super) async fn a_nack_of_the_last_attempt_buries_nothing(bed: Bed) {
    bed.store(&[msg("m").with_max_attempts(1)]).await;
    let delivery = bed.lease_one().await;
    assert_eq!(bed.change(&delivery.receipt, nack(500)).await, Applied);
    let stats = bed.stats().await;
    assert_eq!((stats.delayed, stats.dead), (1, 0));
    bed.pass(500).await;
    assert_eq!(bed.stats().await.ready, 1);
    bed.expect_none_ready("one attempt was allowed").await;
    assert_eq!(bed.stats().await.dead, 1);
}

pub(super) async fn the_most_attempts_are_many(bed: Bed) {
    bed.store(&[msg("m").with_max_attempts(u32::MAX)]).await;
    for attempt in 1..=3 {
        assert_eq!(bed.lease_one().await.attempt, attempt);
        bed.pass(10_000).await;
    }
}

pub(super) async fn burying_makes_way_for_the_next(bed: Bed) {
    bed.store(&[msg("x").with_max_attempts(1), msg("y").with_max_attempts(1)])
        .await;
    bed.lease(2).await;
    // Longer than the leases: of what is ready in the same millisecond, any may come first.
    bed.pass(11_000).await;
    bed.store(&[msg("a"), msg("b")]).await;
    let deliveries = bed.lease(1).await;
    assert_eq!(
        deliveries.len(),
        1,
        "two dead ones in front do not make the queue look empty"
    );
    assert_eq!(bed.stats().await.dead, 2);
}

pub(super) async fn dead_letters_keep_everything(bed: Bed) {
    let message = msg("m")
        .with_max_attempts(1)
        .with_header("trace", "4bf9")
        .with_header("a.b", "");
    let sent = bed.now();
    bed.store(std::slice::from_ref(&message)).await;
    bed.lease_one().await;
    bed.pass(11_000).await;
    bed.expect_none_ready("one attempt was allowed").await;
    let letters = bed.dead_letters().await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.id, message.id);
    assert_eq!(letter.payload, message.payload);
    assert_eq!(letter.headers, message.headers);
    assert_eq!((letter.attempts, letter.enqueued_at), (1, sent));
    assert_eq!(letter.reason, DeadReason::AttemptsExhausted);
    assert_eq!(letter.died_at, sent + Duration::from_secs(11));
}

pub(super) async fn a_rejected_message_stays_dead(bed: Bed) {
    bed.store(&[msg("m")]).await;
    let delivery = bed.lease_one().await;
    assert_eq!(
        bed.change(&delivery.receipt, dead_letter("no")).await,
        Applied
    );
    bed.pass(3_600_000).await;
    bed.expect_none_ready("dead letters stay dead").await;
    assert_eq!(bed.ack(&delivery.receipt).await, Lost);
    let expected = QueueStats {
        dead: 1,
        ..QueueStats::default()
    };
    assert_eq!(bed.stats().await, expected);
}

pub(super) async fn dead_letters_keep_their_reason(bed: Bed) {
    let reasons = [
        "",
        "no such customer: \"Zoë\"\nsecond line\0",
        &"long ".repeat(819),
    ];
    for (n, reason) in reasons.iter().enumerate() {
        bed.store(&[msg(&format!("m{n}"))]).await;
        let delivery = bed.lease_one().await;
        assert_eq!(
            bed.change(&delivery.receipt, dead_letter(reason)).await,
            Applied
        );
    }
    let letters = bed.dead_letters().await;
    for (letter, reason) in letters.iter().zip(reasons) {
        assert_eq!(letter.died_at, bed.now());
        assert_eq!(letter.reason, DeadReason::Rejected(reason.to_owned()));
        assert_eq!(letter.attempts, 1);
    }
    assert_eq!(letters.len(), 3);
}

pub(super) async fn redrive_starts_afresh(bed: Bed) {
    let message = msg("m").with_max_attempts(2).with_header("kept", "yes");
    bed.store(std::slice::from_ref(&message)).await;
    let mut receipts = BTreeSet::new();
    for _ in 0..2 {
        receipts.insert(bed.lease_one().await.receipt);
        bed.pass(10_000).await;
    }
    bed.expect_none_ready("two attempts were allowed").await;
    bed.pass(7).await;
    let redriven = bed
        .admin()
        .redrive(&bed.name, &Redrive::All)
        .await
        .expect("redrive succeeds");
    assert_eq!(redriven, 1);
    assert!(bed.dead_letters().await.is_empty());
    let ready_since_now = QueueStats {
        ready: 1,
        oldest_ready: Some(Duration::ZERO),
        ..QueueStats::default()
    };
    assert_eq!(bed.stats().await, ready_since_now);
    for attempt in 1..=2 {
        let delivery = bed.lease_one().await;
        assert_eq!(delivery.attempt, attempt, "attempts start afresh");
        assert!(receipts.insert(delivery.receipt), "receipts do not");
        assert_eq!(
            (&delivery.payload, &delivery.headers),
            (&message.payload, &message.headers)
        );
        bed.pass(10_000).await;
    }
    bed.expect_none_ready("again two attempts were allowed")
        .await;
    assert_eq!(bed.stats().await.dead, 1);
}

pub(super) async fn many_dead_letters_are_listed_and_redriven(bed: Bed) {
    let most = bed.backend().limits().max_batch.min(1000);
    let messages: Vec<_> = (0..most).map(|n| msg(&format!("m{n}"))).collect();
    bed.store(&messages).await;
    let deliveries = bed.lease(most).await.into_iter();
    let changes = deliveries.map(|delivery| LeaseChange::dead_letter(delivery.receipt, "no"));
    bed.change_all(&changes.collect::<Vec<_>>()).await;
    let (admin, name) = (bed.admin(), &bed.name);
    let letters = admin.dead_letters(name, &DeadLetterPage::new(most)).await;
    assert_eq!(letters.expect("listing succeeds").len(), most);
    let redriven = admin.redrive(name, &Redrive::All).await;
    assert_eq!(redriven.expect("redrive succeeds"), most as u64);
    let seen = admin.peek(name, most).await;
    assert_eq!(seen.expect("peek succeeds").len(), most);
    let purged = admin.purge(name, Purge::Live).await;
    assert_eq!(purged.expect("purge succeeds"), most as u64);
}

pub(super) async fn redrive_takes_only_what_was_named(bed: Bed) {
    bed.store(&[msg("a"), msg("b"), msg("c"), msg("live")])
        .await;
    for delivery in bed.lease(4).await {
        if delivery.id.as_str() != "live" {
            bed.change(&delivery.receipt, dead_letter("for now")).await;
        }
    }
    let named = Redrive::Ids(vec![id_of("c"), id_of("live"), id_of("nobody"), id_of("a")]);
    let redrive = async || bed.admin().redrive(&bed.name, &named).await;
    assert_eq!(redrive().await.expect("redrive succeeds"), 2);
    assert_eq!(redrive().await.expect("redrive may be repeated"), 0);
    let none = Redrive::Ids(Vec::new());
    let redriven = bed.admin().redrive(&bed.name, &none).await;
    assert_eq!(redriven.expect("redrive succeeds"), 0, "none is not all");
    let stats = bed.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.dead), (2, 1, 1));
    assert_eq!(bed.dead_letters().await[0].id.as_str(), "b");
}

pub(super) async fn burying_stops_when_there_is_enough(bed: Bed) {
    bed.store(&[msg("front").with_max_attempts(1)]).await;
    bed.lease_for(1, 10).await;
    bed.pass(20).await;
    bed.store(&[msg("middle")]).await;
    bed.pass(20).await;
    bed.store(&[msg("back").with_max_attempts(1)]).await;
    let middle_and_back = bed.lease_for(2, 30).await;
    // "front" was met and buried; the other two come back in the same order.
    assert_eq!(ids(&middle_and_back), ["middle", "back"]);
    assert_eq!(bed.stats().await.dead, 1);
    bed.change(&middle_and_back[0].receipt, extend(20)).await;
    bed.pass(50).await;
    assert_eq!(ids(&bed.lease(1).await), ["middle"]);
    let stats = bed.stats().await;
    assert_eq!(
        (stats.ready, stats.dead),
        (1, 1),
        "what is behind the last one given stays"
    );
    bed.expect_none_ready("the one behind is exhausted").await;
    assert_eq!(bed.stats().await.dead, 2);
}

pub(super) async fn the_last_attempt_can_still_be_acked(bed: Bed) {
    bed.store(&[msg("m").with_max_attempts(1)]).await;
    let delivery = bed.lease_one().await;
    bed.pass(20_000).await;
    assert_eq!(
        bed.ack(&delivery.receipt).await,
        Applied,
        "late, but nobody buried it yet"
    );

    bed.store(&[msg("n").with_max_attempts(1)]).await;
    let delivery = bed.lease_one().await;
    bed.pass(20_000).await;
    bed.expect_none_ready("one attempt was allowed").await;
    assert_eq!(
        bed.ack(&delivery.receipt).await,
        Lost,
        "it is dead, and its payload is kept"
    );
    assert_eq!(bed.stats().await.dead, 1);
}

pub(super) async fn dead_letters_are_listed_in_pages(bed: Bed) {
    for id in ["c", "a", "e", "b", "d"] {
        bed.store(&[msg(id)]).await;
        let delivery = bed.lease_one().await;
        bed.change(&delivery.receipt, dead_letter("no")).await;
        bed.pass(1).await;
    }
    let none = DeadLetterPage::new(0);
    let letters = bed.admin().dead_letters(&bed.name, &none).await;
    assert!(letters.expect("listing succeeds").is_empty());
    let mut page = DeadLetterPage::new(2);
    let mut listed = Vec::new();
    // One page more than there are, for a backend whose pages do not end.
    for _ in 0..4 {
        let letters = bed
            .admin()
            .dead_letters(&bed.name, &page)
            .await
            .expect("listing succeeds");
        assert!(letters.len() <= 2);
        let Some(last) = letters.last() else { break };
        page = DeadLetterPage::new(2).starting_after(last.id.clone());
        listed.extend(letters.iter().map(|letter| letter.id.to_string()));
    }
    assert_eq!(listed, ["a", "b", "c", "d", "e"]);
}
