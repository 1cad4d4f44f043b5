use queue_api::Clock;
use queue_api::ManualClock;

use super::*;

fn message(visibility: Duration, max_attempts: u32) -> NewMessage {
    NewMessage::new("")
        .with_id(MessageId::new("m").expect("it is valid"))
        .with_visibility_timeout(visibility)
        .with_max_attempts(max_attempts)
}

/// A delivery of a message that was enqueued at `enqueued_at`.
fn delivery(of: &NewMessage, enqueued_at: SystemTime, now: SystemTime, attempt: u32) -> Delivery {
    let receipt = Receipt::new(attempt.to_string());
    Delivery::new(of.id.clone(), of.payload.clone(), receipt)
        .with_headers(of.headers.clone())
        .with_attempt(attempt)
        .with_enqueued_at(enqueued_at)
        .with_max_attempts(of.max_attempts_or_default())
        .with_visibility_timeout(of.visibility_timeout_or_default())
        .with_lease_expires_at(now + of.visibility_timeout_or_default())
}

#[test]
fn the_delivery_of_an_exhausted_message_breaks_d1() {
    let now = ManualClock::new().now();
    let message = message(Duration::from_millis(1), 1);
    let mut model = Model::default();
    assert_eq!(model.enqueue(&message, now), EnqueueOutcome::Stored);
    let first = model.lease(6, None, now, &[delivery(&message, now, now, 1)]);
    assert_eq!(first, Ok(vec![]));
    let later = now + message.visibility_timeout_or_default();
    let again = model.lease(6, None, later, &[delivery(&message, now, later, 2)]);
    let why = again.expect_err("one attempt was allowed");
    assert!(why.starts_with("D1: m was delivered more often"), "{why}");
}

#[test]
fn a_message_twice_in_one_call_breaks_l4() {
    let now = ManualClock::new().now();
    let message = message(Duration::ZERO, 5);
    let mut model = Model::default();
    assert_eq!(model.enqueue(&message, now), EnqueueOutcome::Stored);
    let again = [1, 2].map(|attempt| delivery(&message, now, now, attempt));
    // Neither passed over nor a dead letter: the call has met it.
    assert_eq!(model.lease(6, None, now, &again[..1]), Ok(vec![]));
    assert_eq!(model.lease(6, None, now, &again[1..]), Ok(vec![]));
    let third = [3, 4].map(|attempt| delivery(&message, now, now, attempt));
    let why = model
        .lease(6, None, now, &third)
        .expect_err("one call met it twice");
    assert_eq!(why, "L4: m was delivered twice in one call");
}
