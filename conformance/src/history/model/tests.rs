use queue_api::Clock;
use queue_api::ManualClock;

use super::*;

#[test]
fn the_delivery_of_an_exhausted_message_breaks_d1() {
    let now = ManualClock::new().now();
    let id = MessageId::new("m").expect("it is valid");
    let message = NewMessage::new("")
        .with_id(id.clone())
        .with_visibility_timeout(Duration::from_millis(1))
        .with_max_attempts(1);
    let mut model = Model::default();
    assert_eq!(model.enqueue(&message, now), EnqueueOutcome::Stored);
    let delivery = |attempt: u32, now: SystemTime| {
        Delivery::new(
            id.clone(),
            message.payload.clone(),
            Receipt::new(attempt.to_string()),
        )
        .with_headers(message.headers.clone())
        .with_attempt(attempt)
        .with_enqueued_at(now)
        .with_max_attempts(1)
        .with_visibility_timeout(message.visibility_timeout_or_default())
        .with_lease_expires_at(now + message.visibility_timeout_or_default())
    };
    let first = model.lease(6, None, now, &[delivery(1, now)]);
    assert_eq!(first, Ok(vec![]));
    let later = now + message.visibility_timeout_or_default();
    let again = model.lease(6, None, later, &[delivery(2, later)]);
    let why = again.expect_err("one attempt was allowed");
    assert!(why.starts_with("D1: m was delivered more often"), "{why}");
}
