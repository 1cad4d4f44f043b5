//! E1 to E4: enqueue.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use queue_api::{
    Bytes, EnqueueOutcome, Headers, LeaseAction, LeaseChange, LeaseOutcome, Limits, MessageId,
    NewMessage, Redrive,
};

use crate::fixture::{Fixture, dead_letter, id_of, ids, msg, nack, sorted_ids};

pub(super) async fn what_is_stored_is_delivered(fixture: Fixture) {
    let names: Vec<String> = (0..25).map(|n| format!("m{n:02}")).collect();
    let messages: Vec<_> = names.iter().map(|name| msg(name)).collect();
    fixture.store(&messages).await;
    let deliveries = fixture.lease(100).await;
    assert_eq!(sorted_ids(&deliveries), names);
}

pub(super) async fn an_unacked_message_comes_back_every_time(fixture: Fixture) {
    fixture
        .store(&[msg("stubborn").with_max_attempts(1000)])
        .await;
    // More than a byte counts.
    for round in 1..=260 {
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.attempt, round);
        if round % 3 == 0 {
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
}

pub(super) async fn a_stored_id_is_a_duplicate_in_every_state(fixture: Fixture) {
    let again = async |state: &str| {
        let outcomes = fixture.enqueue(&[msg("m")]).await;
        assert_eq!(outcomes, [EnqueueOutcome::Duplicate], "the id is {state}");
    };
    fixture
        .store(&[msg("m").with_delay(Duration::from_secs(1))])
        .await;
    again("delayed").await;
    fixture.pass(1000).await;
    again("ready").await;
    // Longer than a store may remember ids, or keep messages.
    fixture.pass(366 * 24 * 3_600_000).await;
    again("ready for a year").await;
    let delivery = fixture.lease_one().await;
    again("leased").await;
    fixture.pass(10_000).await;
    again("ready after its lease").await;
    assert!(
        fixture
            .change(&delivery.receipt, nack(500))
            .await
            .is_applied()
    );
    again("delayed by a nack").await;
    fixture.pass(500).await;
    let delivery = fixture.lease_one().await;
    assert!(
        fixture
            .change(&delivery.receipt, dead_letter("enough"))
            .await
            .is_applied()
    );
    again("dead").await;
}

pub(super) async fn a_duplicate_changes_nothing(fixture: Fixture) {
    let first = msg("m")
        .with_header("version", "first")
        .with_max_attempts(2);
    fixture.store(std::slice::from_ref(&first)).await;
    let sent = fixture.now();
    fixture.pass(5).await;
    let other = NewMessage::new("another payload")
        .with_id(id_of("m"))
        .with_header("version", "second")
        .with_delay(Duration::from_secs(60))
        .with_visibility_timeout(Duration::from_secs(99))
        .with_max_attempts(9);
    fixture.enqueue(std::slice::from_ref(&other)).await;

    let delivery = fixture.lease_one().await;
    assert_eq!(delivery.payload, first.payload);
    assert_eq!(delivery.headers, first.headers);
    assert_eq!(delivery.enqueued_at, sent);
    assert_eq!(
        delivery.lease_expires_at,
        fixture.now() + first.visibility_timeout_or_default()
    );
    fixture.enqueue(std::slice::from_ref(&other)).await;
    fixture
        .expect_none_ready("a duplicate does not end a lease")
        .await;
    fixture.pass(10_000).await;
    assert_eq!(fixture.lease_one().await.attempt, 2);
    fixture.pass(10_000).await;
    fixture.expect_none_ready("two attempts were allowed").await;
}

pub(super) async fn equal_ids_in_one_batch_are_stored_once(fixture: Fixture) {
    let second = NewMessage::new("second").with_id(id_of("a"));
    let outcomes = fixture.enqueue(&[msg("a"), second, msg("b")]).await;
    use EnqueueOutcome::{Duplicate, Stored};
    assert_eq!(outcomes, [Stored, Duplicate, Stored]);
    let mut deliveries = fixture.lease(10).await;
    deliveries.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&deliveries), ["a", "b"]);
    assert_eq!(deliveries[0].payload, "a", "the first of the two is kept");
}

pub(super) async fn a_full_batch_of_duplicates(fixture: Fixture) {
    let most = fixture.backend().limits().max_batch.get().min(1000);
    let messages: Vec<_> = (0..most).map(|n| msg(&format!("m{n}"))).collect();
    fixture.store(&messages).await;
    let outcomes = fixture.enqueue(&messages).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == EnqueueOutcome::Duplicate),
        "all of them are duplicates: {outcomes:?}"
    );
    assert_eq!(fixture.stats().await.ready, most as u64);
}

pub(super) async fn an_acked_id_may_be_used_again(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let first = fixture.lease_one().await;
    assert!(fixture.ack(&first.receipt).await.is_applied());
    fixture
        .store(&[NewMessage::new("anew").with_id(id_of("m"))])
        .await;
    let second = fixture.lease_one().await;
    assert_eq!((&second.payload[..], second.attempt), (&b"anew"[..], 1));
    assert_ne!(first.receipt, second.receipt);
}

fn payloads() -> [Bytes; 7] {
    let every_byte: Vec<u8> = (0..=255).collect();
    [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b" \t\r\n"),
        Bytes::from_static(b"\nlines end\r\nhere\n"),
        Bytes::from_static(b"\xff\xfe\x00\xc3\x28 not UTF-8"),
        Bytes::from(every_byte),
        Bytes::from(vec![b'x'; 100_000]),
    ]
}

/// With as many bytes of payload and of headers as the backend allows.
fn largest(id: &str, limits: &Limits) -> NewMessage {
    let payload = (0..limits.max_payload_bytes).map(|n| (n % 251) as u8);
    let header = "h".repeat(limits.max_header_bytes - 1);
    msg(id)
        .with_payload(payload.collect::<Vec<_>>())
        .with_header("k", header)
}

/// From the first delivery to that after a redrive, and in each list.
pub(super) async fn dead_letters_keep_payloads_and_headers(fixture: Fixture) {
    let mut messages: Vec<_> = payloads()
        .into_iter()
        .enumerate()
        .map(|(n, payload)| {
            let header = format!("\0 {n}");
            msg(&format!("m{n}"))
                .with_payload(payload)
                .with_header("n", header)
        })
        .collect();
    messages.push(largest("largest", &fixture.backend().limits()));
    let expect = |place: &str, seen: Vec<(&MessageId, &Bytes, &Headers)>| {
        assert_eq!(seen.len(), messages.len(), "{place}");
        for (id, payload, headers) in seen {
            let sent = messages.iter().find(|message| message.id == *id);
            let sent = sent.expect("the id is one of those sent");
            // Not in full: it may be large.
            assert!(*payload == sent.payload, "{place}: the payload of {id}");
            assert!(*headers == sent.headers, "{place}: the headers of {id}");
        }
    };
    macro_rules! parts {
        ($items:expr) => {
            $items
                .iter()
                .map(|it| (&it.id, &it.payload, &it.headers))
                .collect()
        };
    }
    fixture.store(&messages).await;
    let change_all = async |place: &str, action: LeaseAction| {
        let leased = fixture.lease(10).await;
        expect(place, parts!(leased));
        let changes = leased.into_iter().map(|delivery| LeaseChange {
            receipt: delivery.receipt,
            action: action.clone(),
        });
        let outcomes = fixture.change_all(&changes.collect::<Vec<_>>()).await;
        assert_eq!(outcomes, vec![LeaseOutcome::Applied; messages.len()]);
    };
    change_all("first delivery", nack(0)).await;
    expect("peek", parts!(fixture.peek(10).await));
    expect("messages", parts!(fixture.messages_in_pages(10).await));
    change_all("second delivery", dead_letter("no")).await;
    let letters = fixture.dead_letters_in_pages(10).await;
    expect("dead letters", parts!(letters));
    assert_eq!(fixture.redrive(&Redrive::All).await, messages.len() as u64);
    expect("after a redrive", parts!(fixture.lease(10).await));
}

pub(super) async fn payloads_come_back_as_sent(fixture: Fixture) {
    for (n, payload) in payloads().iter().enumerate() {
        let id = format!("m{n}");
        fixture
            .store(&[NewMessage::new(payload.clone()).with_id(id_of(&id))])
            .await;
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.id.as_str(), id);
        assert!(delivery.payload == *payload, "payload {n} has changed");
    }
}

pub(super) async fn headers_come_back_as_sent(fixture: Fixture) {
    let message = msg("m")
        .with_header("content-type", "text/plain")
        .with_header("empty", "")
        .with_header("with.dots.and.$dollars", "$set")
        .with_header("$where", "1")
        .with_header("häder 名", "wért\n値")
        .with_header("_id", "not the id")
        .with_header("nul\0", "\0nul")
        .with_header("Case", "upper")
        .with_header("case", "lower")
        .with_header(" padded ", "\tvalue ")
        .with_header("a\u{301}", "e\u{301}")
        .with_header("number", "01.0")
        // What a store may keep of a message in the same place.
        .with_header("id", "not the id")
        .with_header("payload", "not the payload")
        .with_header("headers", "not all")
        .with_header("attempt", "9")
        .with_header("attempts", "9")
        .with_header("max_attempts", "9")
        .with_header("enqueued_at", "9")
        .with_header("delay", "9")
        .with_header("visibility_timeout", "9");
    fixture.store(std::slice::from_ref(&message)).await;
    let delivery = fixture.lease_one().await;
    assert_eq!(delivery.headers, message.headers);
    assert_eq!((&*delivery.payload, delivery.attempt), (&b"m"[..], 1));

    fixture.store(&[msg("bare")]).await;
    assert!(fixture.lease_one().await.headers.is_empty());
}

pub(super) async fn ids_of_any_text_work(fixture: Fixture) {
    let texts = [
        "with space",
        "sch\u{f6}n",
        "a.b$c",
        "-",
        "%41",
        "0",
        "\"'",
        "\u{1f980}",
        "a/b\\c",
        " before and after ",
    ];
    let longest = "x".repeat(MessageId::MAX_BYTES);
    let texts: Vec<&str> = texts.into_iter().chain([longest.as_str()]).collect();
    for text in &texts {
        fixture.store(&[msg(text)]).await;
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.id.as_str(), *text);
        let outcome = fixture.change(&delivery.receipt, nack(0)).await;
        assert_eq!(outcome, queue_api::LeaseOutcome::Applied, "id {text:?}");
        let delivery = fixture.lease_one().await;
        let outcome = fixture.ack(&delivery.receipt).await;
        assert_eq!(outcome, queue_api::LeaseOutcome::Applied, "id {text:?}");
    }
}

/// Texts that are equal for a collation, a Unicode normal form or a conversion to a number, and
/// patterns that match them.
pub(super) const LOOK_ALIKE: [&str; 14] = [
    "a", "A", "a ", " a", "\u{e1}", "a\u{301}", "\u{ff41}", "1", "01", "1.0", "%", "_", "*", ".",
];

pub(super) async fn ids_that_look_alike_are_distinct(fixture: Fixture) {
    fixture.store(&LOOK_ALIKE.map(msg)).await;
    let mut deliveries = fixture.lease(20).await;
    assert_eq!(deliveries.len(), LOOK_ALIKE.len());
    for delivery in &deliveries {
        assert_eq!(delivery.payload, delivery.id.as_str());
    }
    deliveries.retain(|delivery| delivery.id.as_str() != "a");
    for delivery in deliveries {
        assert!(fixture.ack(&delivery.receipt).await.is_applied());
    }
    fixture.pass(10_000).await;
    assert_eq!(ids(&fixture.lease(20).await), ["a"]);
}

pub(super) async fn a_message_that_sets_nothing_has_the_defaults(fixture: Fixture) {
    fixture.store(&[NewMessage::new("")]).await;
    let delivery = fixture.lease_one().await;
    assert_eq!(
        (delivery.max_attempts, delivery.visibility_timeout),
        (
            NewMessage::DEFAULT_MAX_ATTEMPTS,
            NewMessage::DEFAULT_VISIBILITY_TIMEOUT
        )
    );
}

pub(super) async fn a_redelivery_is_the_same_message(fixture: Fixture) {
    let message = msg("m").with_header("k", "v");
    fixture.store(std::slice::from_ref(&message)).await;
    for redelivery in [Some(nack(0)), Some(LeaseAction::Release), None, None] {
        let delivery = fixture.lease_one().await;
        assert_eq!(delivery.id, message.id);
        assert_eq!(delivery.payload, message.payload);
        assert_eq!(delivery.headers, message.headers);
        match redelivery {
            Some(action) => drop(fixture.change(&delivery.receipt, action).await),
            None => fixture.pass(10_000).await,
        }
    }
}

pub(super) async fn times_come_back_as_sent(fixture: Fixture) {
    let message = msg("m").with_delay(Duration::from_millis(1500));
    let sent = fixture.now();
    fixture.store(&[message]).await;
    fixture.pass(2000).await;
    let first = fixture.lease_one().await;
    assert_eq!(first.enqueued_at, sent);
    assert_eq!(
        first.lease_expires_at,
        fixture.now() + Duration::from_secs(10)
    );
    assert_eq!(first.visibility_timeout, Duration::from_secs(10));
    assert_eq!(first.max_attempts, NewMessage::DEFAULT_MAX_ATTEMPTS);
    fixture.pass(10_000).await;
    let second = fixture.lease_one().await;
    assert_eq!(second.enqueued_at, sent, "a redelivery does not change it");
}

pub(super) async fn a_payload_at_the_limit_comes_back(fixture: Fixture) {
    let message = largest("large", &fixture.backend().limits());
    fixture.store(std::slice::from_ref(&message)).await;
    let delivery = fixture.lease_one().await;
    assert!(
        delivery.payload == message.payload,
        "the largest payload has changed"
    );
    assert_eq!(delivery.headers, message.headers);

    // The limit counts bytes. A store may have another for the number of headers.
    let most = fixture.backend().limits().max_header_bytes.min(10_000);
    let names = (0..most / 4).map(|n| (format!("{n:04}"), String::new()));
    let mut message = msg("many headers");
    message.headers = names.collect();
    fixture.store(std::slice::from_ref(&message)).await;
    assert_eq!(fixture.lease_one().await.headers, message.headers);
}

/// The batch is within the backend's limits. The store's own limit for a request is not the
/// caller's concern.
pub(super) async fn a_batch_of_large_payloads_comes_back(fixture: Fixture) {
    let limits = fixture.backend().limits();
    let count = limits.max_batch.get().min(7);
    let payload = Bytes::from(vec![b'x'; limits.max_payload_bytes.min(8 << 20)]);
    let messages = (0..count).map(|n| msg(&format!("m{n}")).with_payload(payload.clone()));
    fixture.store(&messages.collect::<Vec<_>>()).await;
    // A store that reads them in parts meets those again that are ready again.
    for millis in [0, 10_000] {
        let deliveries = fixture.lease_for(count, millis).await;
        let met: HashSet<_> = deliveries.iter().map(|each| &each.id).collect();
        assert_eq!((met.len(), deliveries.len()), (count, count));
        let mut payloads = deliveries.iter().map(|each| &each.payload);
        assert!(
            payloads.all(|it| *it == payload),
            "a large payload has changed"
        );
    }
}

pub(super) async fn a_delay_is_exact_to_the_millisecond(fixture: Fixture) {
    fixture
        .store(&[msg("m").with_delay(Duration::from_millis(5000))])
        .await;
    fixture.expect_none_ready("the delay has just begun").await;
    fixture.pass(4999).await;
    fixture.expect_none_ready("1 ms of the delay is left").await;
    fixture.pass(1).await;
    assert_eq!(fixture.lease_one().await.attempt, 1);
}

pub(super) async fn delays_in_one_batch_are_independent(fixture: Fixture) {
    let delayed = |id: &str, millis| msg(id).with_delay(Duration::from_millis(millis));
    fixture
        .store(&[
            delayed("c", 30),
            delayed("a", 10),
            msg("now"),
            delayed("b", 20),
        ])
        .await;
    for expected in ["now", "a", "b", "c"] {
        assert_eq!(ids(&fixture.lease(10).await), [expected]);
        fixture.pass(10).await;
    }
}

pub(super) async fn a_delay_passes_in_real_time(fixture: Fixture) {
    let started = Instant::now();
    fixture
        .store(&[msg("m").with_delay(Duration::from_millis(1500))])
        .await;
    let early = fixture.lease_for(10, 1).await;
    // On a very busy machine the message may be ready by now. The backend's clock has whole
    // milliseconds, and may be another machine's.
    assert!(
        early.is_empty() || started.elapsed().as_millis() >= 1490,
        "it was delivered before its delay had passed"
    );
    fixture.pass(1600).await;
    assert_eq!(ids(&fixture.lease(10).await), ["m"]);
}
