//! D1: dead letters.

use std::{collections::BTreeSet, time::Duration};

use queue_api::{
    DeadLetter, DeadReason,
    LeaseOutcome::{Applied, Lost},
    PageOptions, PageToken, Purge, QueueStats, Redrive,
};

use super::manage::expect_none_or_refused;
use crate::fixture::{Fixture, dead_letter, extend, id_of, ids, msg, nack};

pub(super) async fn after_max_attempts_a_message_becomes_a_dead_letter(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(3)]).await;
    for attempt in 1..=3 {
        let delivery = fixture.lease_one().await;
        assert_eq!((delivery.attempt, delivery.max_attempts), (attempt, 3));
        if attempt == 2 {
            assert!(
                fixture
                    .change(&delivery.receipt, nack(0))
                    .await
                    .is_applied()
            );
        } else {
            fixture.pass(10_000).await;
        }
    }
    let stats = fixture.stats().await;
    assert_eq!(
        (stats.ready, stats.dead),
        (1, 0),
        "only a lease call makes it a dead letter"
    );
    fixture
        .expect_none_ready("three attempts were allowed")
        .await;
    let stats = fixture.stats().await;
    assert_eq!((stats.ready, stats.dead), (0, 1));
    fixture.pass(3_600_000).await;
    fixture
        .expect_none_ready("a dead letter is not leased")
        .await;
}

pub(super) async fn a_nack_of_the_last_attempt_makes_no_dead_letter(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(1)]).await;
    let delivery = fixture.lease_one().await;
    assert_eq!(fixture.change(&delivery.receipt, nack(500)).await, Applied);
    let stats = fixture.stats().await;
    assert_eq!((stats.delayed, stats.dead), (1, 0));
    fixture.pass(500).await;
    assert_eq!(fixture.stats().await.ready, 1);
    fixture.expect_none_ready("one attempt was allowed").await;
    assert_eq!(fixture.stats().await.dead, 1);
}

pub(super) async fn the_largest_max_attempts_works(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(u32::MAX)]).await;
    for attempt in 1..=3 {
        let delivery = fixture.lease_one().await;
        let attempts = (delivery.attempt, delivery.max_attempts);
        assert_eq!(attempts, (attempt, u32::MAX));
        fixture.pass(10_000).await;
    }
}

pub(super) async fn exhausted_messages_do_not_hide_ready_ones(fixture: Fixture) {
    fixture
        .store(&[msg("x").with_max_attempts(1), msg("y").with_max_attempts(1)])
        .await;
    fixture.lease(2).await;
    // Longer than the leases, because messages of the same millisecond come in any order.
    fixture.pass(11_000).await;
    fixture.store(&[msg("a"), msg("b")]).await;
    let deliveries = fixture.lease(1).await;
    assert_eq!(
        deliveries.len(),
        1,
        "two exhausted messages in front do not hide a ready one"
    );
    assert_eq!(fixture.stats().await.dead, 2);
}

pub(super) async fn dead_letters_keep_the_whole_message(fixture: Fixture) {
    let message = msg("m")
        .with_max_attempts(1)
        .with_header("trace", "4bf9")
        .with_header("a.b", "");
    let sent = fixture.now();
    fixture.store(std::slice::from_ref(&message)).await;
    fixture.lease_one().await;
    fixture.pass(11_000).await;
    fixture.expect_none_ready("one attempt was allowed").await;
    let letters = fixture.all_dead_letters().await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.id, message.id);
    assert_eq!(letter.payload, message.payload);
    assert_eq!(letter.headers, message.headers);
    assert_eq!((letter.attempts, letter.max_attempts), (1, 1));
    assert_eq!(letter.visibility_timeout, Duration::from_secs(10));
    assert_eq!(letter.enqueued_at, sent);
    assert_eq!(letter.reason, DeadReason::AttemptsExhausted);
    assert_eq!(letter.died_at, sent + Duration::from_secs(11));
}

pub(super) async fn a_rejected_message_stays_dead(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    assert_eq!(
        fixture.change(&delivery.receipt, dead_letter("no")).await,
        Applied
    );
    fixture.pass(3_600_000).await;
    fixture
        .expect_none_ready("a dead letter is not leased")
        .await;
    assert_eq!(fixture.ack(&delivery.receipt).await, Lost);
    let expected = QueueStats::default().with_dead(1);
    assert_eq!(fixture.stats().await, expected);
}

pub(super) async fn dead_letters_keep_their_reason(fixture: Fixture) {
    // A store may keep the reason as text.
    let exhausted = DeadReason::AttemptsExhausted;
    let reasons = [
        "",
        &exhausted.to_string(),
        &format!("{exhausted:?}"),
        "no such customer: \"Zoë\"\nsecond line\0",
        &"long ".repeat(819),
    ];
    for (n, reason) in reasons.iter().enumerate() {
        let once = msg(&format!("m{n}")).with_max_attempts(1);
        fixture.store(&[once]).await;
        let delivery = fixture.lease_one().await;
        assert_eq!(
            fixture.change(&delivery.receipt, dead_letter(reason)).await,
            Applied
        );
    }
    let mut letters = fixture.all_dead_letters().await;
    letters.sort_by(|one, other| one.id.cmp(&other.id));
    for (letter, reason) in letters.iter().zip(reasons) {
        assert_eq!(letter.died_at, fixture.now());
        assert_eq!(letter.reason, DeadReason::Rejected(reason.to_owned()));
        assert_eq!(letter.attempts, 1);
    }
    assert_eq!(letters.len(), reasons.len());

    // The reason of an earlier death does not count.
    assert_eq!(fixture.redrive(&Redrive::All).await, letters.len() as u64);
    fixture.lease_for(letters.len(), 1).await;
    fixture.pass(1).await;
    fixture.expect_none_ready("one attempt was allowed").await;
    let again = fixture.all_dead_letters().await;
    assert_eq!(again.len(), letters.len());
    for letter in again {
        assert_eq!(letter.reason, DeadReason::AttemptsExhausted);
        assert_eq!(letter.died_at, fixture.now());
    }
}

pub(super) async fn redrive_counts_attempts_from_zero(fixture: Fixture) {
    let message = msg("m").with_max_attempts(2).with_header("kept", "yes");
    fixture.store(std::slice::from_ref(&message)).await;
    let mut receipts = BTreeSet::new();
    for _ in 0..2 {
        receipts.insert(fixture.lease_one().await.receipt);
        fixture.pass(10_000).await;
    }
    fixture.expect_none_ready("two attempts were allowed").await;
    fixture.pass(7).await;
    assert_eq!(fixture.redrive(&Redrive::All).await, 1);
    assert!(fixture.all_dead_letters().await.is_empty());
    let ready_since_now = QueueStats::default()
        .with_ready(1)
        .with_oldest_ready(Some(Duration::ZERO));
    assert_eq!(fixture.stats().await, ready_since_now);
    for attempt in 1..=2 {
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.attempt, attempt, "attempts count from 1 again");
        assert!(receipts.insert(delivery.receipt), "receipts do not repeat");
        assert_eq!(
            (&delivery.payload, &delivery.headers),
            (&message.payload, &message.headers)
        );
        fixture.pass(10_000).await;
    }
    fixture
        .expect_none_ready("two more attempts were allowed")
        .await;
    assert_eq!(fixture.stats().await.dead, 1);
}

pub(super) async fn redrive_takes_only_the_named_ids(fixture: Fixture) {
    fixture
        .store(&[msg("a"), msg("b"), msg("c"), msg("live")])
        .await;
    for delivery in fixture.lease(4).await {
        if delivery.id.as_str() != "live" {
            assert!(
                fixture
                    .change(&delivery.receipt, dead_letter("for now"))
                    .await
                    .is_applied()
            );
        }
    }
    let named = Redrive::Ids(vec![
        id_of("c"),
        id_of("live"),
        id_of("unknown"),
        id_of("a"),
    ]);
    assert_eq!(fixture.redrive(&named).await, 2);
    assert_eq!(fixture.redrive(&named).await, 0, "a repeat");
    let none = Redrive::Ids(Vec::new());
    assert_eq!(fixture.redrive(&none).await, 0, "no ids");
    let stats = fixture.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.dead), (2, 1, 1));
    assert_eq!(fixture.all_dead_letters().await[0].id.as_str(), "b");
}

pub(super) async fn a_lease_leaves_exhausted_messages_behind_the_last_one(fixture: Fixture) {
    fixture.store(&[msg("front").with_max_attempts(1)]).await;
    fixture.lease_for(1, 10).await;
    fixture.pass(20).await;
    fixture.store(&[msg("middle")]).await;
    fixture.pass(20).await;
    fixture.store(&[msg("back").with_max_attempts(1)]).await;
    let middle_and_back = fixture.lease_for(2, 30).await;
    // "front" is a dead letter now. The other two come back in the same order.
    assert_eq!(ids(&middle_and_back), ["middle", "back"]);
    assert_eq!(fixture.stats().await.dead, 1);
    assert!(
        fixture
            .change(&middle_and_back[0].receipt, extend(20))
            .await
            .is_applied()
    );
    fixture.pass(50).await;
    assert_eq!(ids(&fixture.lease(1).await), ["middle"]);
    let stats = fixture.stats().await;
    assert_eq!(
        (stats.ready, stats.dead),
        (1, 1),
        "an exhausted message behind the last delivery stays"
    );
    fixture
        .expect_none_ready("the last message is exhausted")
        .await;
    assert_eq!(fixture.stats().await.dead, 2);
}

pub(super) async fn the_last_attempt_can_still_be_acked(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(1)]).await;
    let delivery = fixture.lease_one().await;
    fixture.pass(20_000).await;
    assert_eq!(
        fixture.ack(&delivery.receipt).await,
        Applied,
        "late, but not a dead letter yet"
    );

    fixture.store(&[msg("n").with_max_attempts(1)]).await;
    let delivery = fixture.lease_one().await;
    fixture.pass(20_000).await;
    fixture.expect_none_ready("one attempt was allowed").await;
    assert_eq!(
        fixture.ack(&delivery.receipt).await,
        Lost,
        "it is a dead letter now"
    );
    assert_eq!(fixture.stats().await.dead, 1);
}

pub(super) async fn dead_letters_are_listed_in_pages(fixture: Fixture) {
    for id in ["c", "a", "e", "b", "d"] {
        fixture.store(&[msg(id)]).await;
        let delivery = fixture.lease_one().await;
        assert!(
            fixture
                .change(&delivery.receipt, dead_letter("no"))
                .await
                .is_applied()
        );
        fixture.pass(1).await;
    }
    let none = PageOptions::new(0);
    let none = fixture.admin().dead_letters(&fixture.name, &none).await;
    expect_none_or_refused(none.map(|page| page.letters));
    let all = fixture.dead_letters_in_pages(6).await;
    let mut ids = ids_of(&all);
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "c", "d", "e"]);
    for max in 1..=5 {
        let letters = fixture.dead_letters_in_pages(max).await;
        assert_eq!(letters, all, "pages of {max}");
    }
}

/// A token is a place in the list, not a number of items, and not an item that must be there.
pub(super) async fn pages_go_on_while_dead_letters_come_and_go(fixture: Fixture) {
    let name = |n: usize, what: &str| format!("{n:02} {what}");
    let stay: Vec<_> = (0..12).map(|n| name(n, "stays")).collect();
    let go = (0..12).map(|n| name(n, "goes"));
    let messages: Vec<_> = stay.iter().cloned().chain(go).map(|id| msg(&id)).collect();
    fixture.store_dead(&messages).await;
    let (mut listed, mut place) = (Vec::new(), None);
    for round in 0.. {
        assert!(round < 50, "the list does not end: {listed:?}");
        let page = PageOptions::new(3);
        let page = match place {
            None => page,
            Some(token) => page.with_token(token),
        };
        let letters = fixture.reconnect().await.dead_letters(&page).await;
        let ids = ids_of(&letters).into_iter().map(str::to_owned);
        let first_new = listed.len();
        listed.extend(ids);
        let Some(token) = &letters.next else {
            break;
        };
        // As an application that sends it to a browser and back.
        let text = token.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        place = Some(PageToken::new(text));
        let goes = listed[first_new..]
            .iter()
            .filter(|id| !id.ends_with("stays"));
        let goes: Vec<_> = goes.map(|id| id_of(id)).collect();
        let gone = goes.len() as u64;
        assert_eq!(fixture.redrive(&Redrive::Ids(goes)).await, gone);
        assert_eq!(fixture.purge(Purge::Live).await, gone);
        // One before the place, one behind it.
        let come = [format!("00 {round:02} comes"), name(round + 5, "comes")];
        fixture.store_dead(&come.map(|id| msg(&id))).await;
    }
    listed.sort_unstable();
    let is_unique = listed.is_sorted_by(|one, next| one < next);
    assert!(is_unique, "none is listed twice: {listed:?}");
    listed.retain(|id| id.ends_with("stays"));
    assert_eq!(listed, stay, "what is there all the time is listed");
}

fn ids_of(letters: &[DeadLetter]) -> Vec<&str> {
    letters.iter().map(|letter| letter.id.as_str()).collect()
}
