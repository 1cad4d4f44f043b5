//! E1 to E4: what enqueue promises.

use std::time::Duration;

use tokio::time::Instant;

use queue_api::{Bytes, EnqueueOutcome, LeaseAction, MessageId, NewMessage};

use crate::bed::{Bed, dead_letter, id_of, ids, msg, nack, sorted_ids};

pub(super) async fn what_is_stored_is_delivered(bed: Bed) {
    let names: Vec<String> = (0..25).map(|n| format!("m{n:02}")).collect();
    let messages: Vec<_> = names.iter().map(|name| msg(name)).collect();
    bed.store(&messages).await;
    let deliveries = bed.lease(100).await;
    assert_eq!(sorted_ids(&deliveries), names);
}

pub(super) async fn what_nobody_acks_comes_back_again_and_again(bed: Bed) {
    bed.store(&[msg("stubborn").with_max_attempts(100)]).await;
    for round in 1..=30 {
        let delivery = bed.lease_one().await;
        assert_eq!(delivery.attempt, round);
        if round % 3 == 0 {
            bed.change(&delivery.receipt, nack(0)).await;
        } else {
            bed.pass(10_000).await;
        }
    }
}

pub(super) async fn a_stored_id_is_a_duplicate_in_every_state(bed: Bed) {
    let again = async |state: &str| {
        let outcomes = bed.enqueue(&[msg("m")]).await;
        assert_eq!(outcomes, [EnqueueOutcome::Duplicate], "the id is {state}");
    };
    bed.store(&[msg("m").with_delay(Duration::from_secs(1))])
        .await;
    again("delayed").await;
    bed.pass(1000).await;
    again("ready").await;
    let delivery = bed.lease_one().await;
    again("leased").await;
    bed.pass(10_000).await;
    again("visible again").await;
    bed.change(&delivery.receipt, nack(500)).await;
    again("held back after a nack").await;
    bed.pass(500).await;
    let delivery = bed.lease_one().await;
    bed.change(&delivery.receipt, dead_letter("enough")).await;
    again("dead").await;
}

pub(super) async fn a_duplicate_changes_nothing(bed: Bed) {
    let first = msg("m")
        .with_header("version", "first")
        .with_max_attempts(2);
    bed.store(std::slice::from_ref(&first)).await;
    let sent = bed.now();
    bed.pass(5).await;
    let other = NewMessage::new("another payload")
        .with_id(id_of("m"))
        .with_header("version", "second")
        .with_delay(Duration::from_secs(60))
        .with_visibility_timeout(Duration::from_secs(99))
        .with_max_attempts(9);
    bed.enqueue(std::slice::from_ref(&other)).await;

    let delivery = bed.lease_one().await;
    assert_eq!(delivery.payload, first.payload);
    assert_eq!(delivery.headers, first.headers);
    assert_eq!(delivery.enqueued_at, sent);
    assert_eq!(
        delivery.lease_expires_at,
        bed.now() + first.visibility_timeout
    );
    bed.enqueue(std::slice::from_ref(&other)).await;
    bed.expect_none_ready("a duplicate does not end a lease")
        .await;
    bed.pass(10_000).await;
    assert_eq!(bed.lease_one().await.attempt, 2);
    bed.pass(10_000).await;
    bed.expect_none_ready("two attempts were allowed").await;
}

pub(super) async fn equal_ids_in_one_batch_are_stored_once(bed: Bed) {
    let second = NewMessage::new("second").with_id(id_of("a"));
    let outcomes = bed.enqueue(&[msg("a"), second, msg("b")]).await;
    use EnqueueOutcome::{Duplicate, Stored};
    assert_eq!(outcomes, [Stored, Duplicate, Stored]);
    let mut deliveries = bed.lease(10).await;
    deliveries.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&deliveries), ["a", "b"]);
    assert_eq!(deliveries[0].payload, "a", "the first of the two is kept");
}

pub(super) async fn a_full_batch_of_duplicates(bed: Bed) {
    let most = bed.backend().limits().max_batch.min(1000);
    let messages: Vec<_> = (0..most).map(|n| msg(&format!("m{n}"))).collect();
    bed.store(&messages).await;
    let outcomes = bed.enqueue(&messages).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == EnqueueOutcome::Duplicate),
        "all of them are duplicates: {outcomes:?}"
    );
    assert_eq!(bed.stats().await.ready, most as u64);
}

pub(super) async fn an_acked_id_may_be_used_again(bed: Bed) {
    bed.store(&[msg("m")]).await;
    let first = bed.lease_one().await;
    bed.ack(&first.receipt).await;
    bed.store(&[NewMessage::new("anew").with_id(id_of("m"))])
        .await;
    let second = bed.lease_one().await;
    assert_eq!((&second.payload[..], second.attempt), (&b"anew"[..], 1));
    assert_ne!(first.receipt, second.receipt);
}

pub(super) async fn payloads_come_back_as_sent(bed: Bed) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads = [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"\xff\xfe\x00\xc3\x28 not UTF-8"),
        Bytes::from(every_byte),
        Bytes::from(vec![b'x'; 100_000]),
    ];
    for (n, payload) in payloads.iter().enumerate() {
        let id = format!("m{n}");
        bed.store(&[NewMessage::new(payload.clone()).with_id(id_of(&id))])
            .await;
        let delivery = bed.lease_one().await;
        assert_eq!(delivery.id.as_str(), id);
        assert!(
            delivery.payload == *payload,
            "payload {n} came back otherwise"
        );
    }
}

pub(super) async fn headers_come_back_as_sent(bed: Bed) {
    let message = msg("m")
        .with_header("content-type", "text/plain")
        .with_header("empty", "")
        .with_header("with.dots.and.$dollars", "$set")
        .with_header("$where", "1")
        .with_header("häder 名", "wért\n値")
        .with_header("_id", "not the id")
        .with_header("nul\0", "\0nul")
        .with_header("Case", "upper")
        .with_header("case", "lower");
    bed.store(std::slice::from_ref(&message)).await;
    assert_eq!(bed.lease_one().await.headers, message.headers);

    bed.store(&[msg("bare")]).await;
    assert!(bed.lease_one().await.headers.is_empty());
}

pub(super) async fn ids_of_any_text_work(bed: Bed) {
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
        bed.store(&[msg(text)]).await;
        let delivery = bed.lease_one().await;
        assert_eq!(delivery.id.as_str(), *text);
        let outcome = bed.change(&delivery.receipt, nack(0)).await;
        assert_eq!(outcome, queue_api::LeaseOutcome::Applied, "id {text:?}");
        let delivery = bed.lease_one().await;
        let outcome = bed.ack(&delivery.receipt).await;
        assert_eq!(outcome, queue_api::LeaseOutcome::Applied, "id {text:?}");
    }
}

/// Texts that a collation, a normal form or a conversion to a number would take for the same.
pub(super) async fn ids_that_look_alike_are_kept_apart(bed: Bed) {
    let texts = [
        "a", "A", "a ", " a", "\u{e1}", "a\u{301}", "\u{ff41}", "1", "01", "1.0",
    ];
    bed.store(&texts.map(msg)).await;
    let mut deliveries = bed.lease(20).await;
    assert_eq!(deliveries.len(), texts.len());
    for delivery in &deliveries {
        assert_eq!(delivery.payload, delivery.id.as_str());
    }
    deliveries.retain(|delivery| delivery.id.as_str() != "a");
    for delivery in deliveries {
        bed.ack(&delivery.receipt).await;
    }
    bed.pass(10_000).await;
    assert_eq!(ids(&bed.lease(20).await), ["a"]);
}

pub(super) async fn a_redelivery_is_the_same_message(bed: Bed) {
    let message = msg("m").with_header("k", "v");
    bed.store(std::slice::from_ref(&message)).await;
    for way_back in [Some(nack(0)), Some(LeaseAction::Return), None, None] {
        let delivery = bed.lease_one().await;
        assert_eq!(delivery.id, message.id);
        assert_eq!(delivery.payload, message.payload);
        assert_eq!(delivery.headers, message.headers);
        match way_back {
            Some(action) => drop(bed.change(&delivery.receipt, action).await),
            None => bed.pass(10_000).await,
        }
    }
}

pub(super) async fn times_come_back_as_sent(bed: Bed) {
    let message = msg("m").with_delay(Duration::from_millis(1500));
    let sent = bed.now();
    bed.store(&[message]).await;
    bed.pass(2000).await;
    let first = bed.lease_one().await;
    assert_eq!(first.enqueued_at, sent);
    assert_eq!(first.lease_expires_at, bed.now() + Duration::from_secs(10));
    assert_eq!(first.visibility_timeout, Duration::from_secs(10));
    assert_eq!(first.max_attempts, NewMessage::DEFAULT_MAX_ATTEMPTS);
    bed.pass(10_000).await;
    let second = bed.lease_one().await;
    assert_eq!(second.enqueued_at, sent, "redelivery does not change it");
}

pub(super) async fn a_payload_at_the_limit_comes_back(bed: Bed) {
    let limits = bed.backend().limits();
    let payload: Vec<u8> = (0..limits.max_payload_bytes)
        .map(|n| (n % 251) as u8)
        .collect();
    let header = "h".repeat(limits.max_header_bytes - 1);
    let message = msg("large").with_header("k", header.clone());
    bed.store(&[NewMessage {
        payload: payload.clone().into(),
        ..message
    }])
    .await;
    let delivery = bed.lease_one().await;
    assert!(
        delivery.payload == payload,
        "the largest payload came back otherwise"
    );
    assert_eq!(delivery.headers["k"], header);
}

/// Each of them is within the limits, and so is their number; a store's own limit for a request
/// or an answer is not the caller's business.
pub(super) async fn a_batch_of_large_payloads_comes_back(bed: Bed) {
    let limits = bed.backend().limits();
    let count = limits.max_batch.min(7);
    let payload = Bytes::from(vec![b'x'; limits.max_payload_bytes.min(8 << 20)]);
    let messages = (0..count).map(|n| NewMessage {
        payload: payload.clone(),
        ..msg(&format!("m{n}"))
    });
    bed.store(&messages.collect::<Vec<_>>()).await;
    let deliveries = bed.lease(count).await;
    assert_eq!(deliveries.len(), count);
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.payload == payload),
        "a large payload came back otherwise"
    );
}

pub(super) async fn a_delay_is_kept_to_the_tick(bed: Bed) {
    bed.store(&[msg("m").with_delay(Duration::from_millis(5000))])
        .await;
    bed.expect_none_ready("the delay begins").await;
    bed.pass(4999).await;
    bed.expect_none_ready("one tick of the delay is left").await;
    bed.pass(1).await;
    assert_eq!(bed.lease_one().await.attempt, 1);
}

/// Milliseconds of 32 bits are spent after 25 or 50 days.
pub(super) async fn the_longest_times_are_kept(bed: Bed) {
    let limits = bed.backend().limits();
    let a_year = Duration::from_secs(366 * 24 * 3600);
    let delay = limits.max_delay.min(a_year);
    let timeout = limits.max_visibility_timeout.min(a_year);
    let message = msg("m").with_delay(delay).with_visibility_timeout(timeout);
    bed.store(&[message]).await;
    for longest in [delay, timeout] {
        let millis = longest.as_millis() as u64;
        bed.pass(millis - 1).await;
        bed.expect_none_ready("one tick is left").await;
        bed.pass(1).await;
        let delivery = bed.lease_one().await;
        assert_eq!(delivery.lease_expires_at, bed.now() + timeout);
    }
}

pub(super) async fn delays_in_one_batch_are_kept_apart(bed: Bed) {
    let delayed = |id: &str, millis| msg(id).with_delay(Duration::from_millis(millis));
    bed.store(&[
        delayed("c", 30),
        delayed("a", 10),
        msg("now"),
        delayed("b", 20),
    ])
    .await;
    for expected in ["now", "a", "b", "c"] {
        assert_eq!(ids(&bed.lease(10).await), [expected]);
        bed.pass(10).await;
    }
}

pub(super) async fn a_delay_passes_in_real_time(bed: Bed) {
    let started = Instant::now();
    bed.store(&[msg("m").with_delay(Duration::from_millis(1500))])
        .await;
    let early = bed.lease_for(10, 1).await;
    // On a machine that was busy for so long, it may be ready by now.
    assert!(
        early.is_empty() || started.elapsed().as_millis() >= 1500,
        "it came before its delay had passed"
    );
    bed.pass(1600).await;
    assert_eq!(ids(&bed.lease(10).await), ["m"]);
}
