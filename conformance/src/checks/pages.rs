//! M1: live messages, page by page.

use std::time::Duration;

use queue_api::{
    ErrorKind, LeaseAction,
    LeaseOutcome::Applied,
    MessageState::{Delayed, Leased, Ready},
    NewMessage, PageOptions, PageToken, PeekedMessage,
};

use super::{
    manage::expect_none_or_refused,
    sizes::{batches, largest_batch},
};
use crate::fixture::{Fixture, dead_letter, extend, id_of, msg, nack, receipts};

pub(super) async fn messages_are_listed_in_pages(fixture: Fixture) {
    let other = fixture.other_queue("other");
    other.fill_every_state().await;
    let sent = fixture.now();
    fixture.store_dead(&[msg("dead")]).await;
    let leased = msg("leased")
        .with_header("k", "v")
        .with_max_attempts(3)
        .with_visibility_timeout(Duration::from_secs(20));
    fixture.store(std::slice::from_ref(&leased)).await;
    fixture.lease_one().await;
    fixture.pass(1000).await;
    fixture.store(&[msg("expired")]).await;
    fixture.lease_for(1, 1).await;
    fixture.pass(1).await;
    let late = msg("late").with_delay(Duration::from_secs(60));
    fixture.store(&[late, msg("ready")]).await;
    let before = fixture.stats().await;

    let message = |id: &'static str, state, attempts, enqueued_at, ready_at| {
        PeekedMessage::new(id_of(id), id, state)
            .with_attempts(attempts)
            .with_max_attempts(NewMessage::DEFAULT_MAX_ATTEMPTS)
            .with_visibility_timeout(Duration::from_secs(10))
            .with_enqueued_at(sent + Duration::from_millis(enqueued_at))
            .with_ready_at(sent + Duration::from_millis(ready_at))
    };
    let expected = [
        message("expired", Ready, 1, 1000, 1001),
        message("late", Delayed, 0, 1001, 61_001),
        message("leased", Leased, 1, 0, 20_000)
            .with_headers(leased.headers)
            .with_max_attempts(3)
            .with_visibility_timeout(Duration::from_secs(20)),
        message("ready", Ready, 0, 1001, 1001),
    ];
    let all = fixture.messages_in_pages(10).await;
    let mut by_id = all.clone();
    by_id.sort_by(|one, next| one.id.cmp(&next.id));
    assert_eq!(by_id, expected, "without the dead letter");
    for max in 1..=5 {
        let messages = fixture.messages_in_pages(max).await;
        assert_eq!(messages, all, "pages of {max}");
    }
    let none = PageOptions::new(0);
    let none = fixture.admin().messages(&fixture.name, &none).await;
    expect_none_or_refused(none.map(|page| page.messages));
    assert_eq!(fixture.stats().await, before, "listing changes nothing");
    let others = other.messages_in_pages(1).await;
    assert_eq!(sorted_ids_of(&others), ["delayed", "leased", "ready"]);
}

/// What happens to a message while it is live does not move it in the list.
pub(super) async fn pages_go_on_while_messages_come_go_and_change(fixture: Fixture) {
    let name = |n: usize, what: &str| format!("{n:02} {what}");
    // Every third one goes.
    let what = |n: usize| match n % 3 {
        0 => "goes",
        _ => "stays",
    };
    let messages = (0..30).map(|n| msg(&name(n, what(n))).with_max_attempts(1000));
    let messages: Vec<_> = messages.collect();
    fixture.store(&messages).await;
    let (mut listed, mut place) = (Vec::new(), None);
    for round in 0.. {
        assert!(round < 100, "the list does not end: {listed:?}");
        let page = PageOptions::new(4);
        let page = match place {
            None => page,
            Some(token) => page.with_token(token),
        };
        let page = fixture.reconnect().await.messages(&page).await;
        listed.extend(page.iter().map(|message| message.id.to_string()));
        let Some(token) = &page.next else {
            break;
        };
        // As an application that sends it to a browser and back.
        let text = token.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        place = Some(PageToken::new(text));
        change_some(&fixture, round).await;
        if round < 10 {
            // One before the place, one behind it, in an order of ids.
            let come = [format!("00 {round:02} comes"), name(4 * round + 9, "comes")];
            fixture.store(&come.map(|id| msg(&id))).await;
        }
    }
    listed.sort_unstable();
    let is_unique = listed.is_sorted_by(|one, next| one < next);
    assert!(is_unique, "none is listed twice: {listed:?}");
    listed.retain(|id| id.ends_with("stays"));
    let ids = messages.iter().map(|message| message.id.to_string());
    let stay: Vec<_> = ids.filter(|id| id.ends_with("stays")).collect();
    assert_eq!(listed, stay, "what is live all the time is listed");
}

/// Leases what is ready. Some of what goes is settled; the rest is leased, extended, nacked or
/// released.
async fn change_some(fixture: &Fixture, round: usize) {
    // Longer than the leases.
    fixture.pass(11_000).await;
    for (n, delivery) in fixture.lease(100).await.into_iter().enumerate() {
        let goes = delivery.id.as_str().ends_with("goes");
        let action = match (n + round) % 5 {
            0 if goes => {
                assert_eq!(fixture.ack(&delivery.receipt).await, Applied);
                continue;
            }
            1 if goes => dead_letter("no"),
            0 => nack(0),
            1 => nack(30_000),
            2 => extend(20_000),
            3 => LeaseAction::Release,
            _ => continue,
        };
        assert_eq!(fixture.change(&delivery.receipt, action).await, Applied);
    }
}

pub(super) async fn more_messages_than_a_batch_are_listed(fixture: Fixture) {
    let most = largest_batch(&fixture);
    let mut messages = batches(&fixture, 5 * most / 2);
    fixture.store(&messages).await;
    // Some are gone, some are leased, and the rest is ready.
    let acked = fixture.lease(most / 2).await;
    messages.retain(|message| !acked.iter().any(|delivery| delivery.id == message.id));
    let outcomes = fixture.ack_all(&receipts(acked)).await;
    assert_eq!(outcomes, vec![Applied; most / 2]);
    fixture.lease(most / 2).await;
    let expected: Vec<_> = messages.iter().map(|message| message.id.as_str()).collect();
    for max in [most, most / 3] {
        let listed = fixture.messages_in_pages(max).await;
        assert_eq!(sorted_ids_of(&listed), expected, "pages of {max}");
        let leased = listed.iter().filter(|message| message.state == Leased);
        assert_eq!(leased.count(), most / 2);
    }
}

/// The token of a page may be any text.
pub(super) async fn a_made_up_page_token_fails_or_lists(fixture: Fixture) {
    fixture.store_dead(&["dead1", "dead2"].map(msg)).await;
    fixture.store(&["live1", "live2"].map(msg)).await;
    // A place in the list may be one in the whole store.
    let (before, after) = (fixture.other_queue("a"), fixture.other_queue("z"));
    for other in [&before, &after] {
        other.store_dead(&["x1", "x2"].map(msg)).await;
        other.store(&["y1", "y2"].map(msg)).await;
    }
    let one = PageOptions::new(1);
    let foreign = [
        before.messages(&one).await.next,
        before.dead_letters(&one).await.next,
    ];
    let foreign = foreign.map(|token| token.expect("there are two").to_string());
    let first = fixture.dead_letters(&PageOptions::new(1)).await;
    let other = first.next.expect("there are two").to_string();
    let long = "9".repeat(1000);
    let long_number = format!("{}.{long}", "0".repeat(32));
    let texts = [
        "",
        "made up",
        "0",
        "-1",
        "\n",
        "é",
        &other,
        &foreign[0],
        &foreign[1],
        &long,
        &long_number,
    ];
    for text in texts {
        let page = PageOptions::new(9).with_token(PageToken::new(text));
        let letters = fixture.admin().dead_letters(&fixture.name, &page).await;
        let letters = letters.map(|page| page.into_iter().map(|it| it.id).collect::<Vec<_>>());
        let messages = fixture.admin().messages(&fixture.name, &page).await;
        let messages = messages.map(|page| page.into_iter().map(|it| it.id).collect::<Vec<_>>());
        for (start, listed) in [("dead", letters), ("live", messages)] {
            match listed {
                Ok(ids) => assert!(
                    ids.iter().all(|id| id.as_str().starts_with(start)),
                    "{text:?}: {ids:?}"
                ),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}: {error:?}")
                }
            }
        }
    }
    let messages = fixture.messages_in_pages(1).await;
    assert_eq!(sorted_ids_of(&messages), ["live1", "live2"]);
    assert_eq!(fixture.all_dead_letters().await.len(), 2);
}

fn sorted_ids_of(messages: &[PeekedMessage]) -> Vec<&str> {
    let mut ids: Vec<_> = messages.iter().map(|message| message.id.as_str()).collect();
    ids.sort_unstable();
    ids
}
