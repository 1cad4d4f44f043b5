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
    let delivery = |attempt: u32, now: SystemTime| Delivery {
        id: id.clone(),
        payload: message.payload.clone(),
        headers: message.headers.clone(),
        attempt,
        enqueued_at: now,
        max_attempts: 1,
        visibility_timeout: message.visibility_timeout,
        lease_expires_at: now + message.visibility_timeout,
        receipt: Receipt::new(attempt.to_string()),
    };
    let first = model.lease(6, None, now, &[delivery(1, now)]);
    assert_eq!(first, Ok(vec![]));
    let later = now + message.visibility_timeout;
    let again = model.lease(6, None, later, &[delivery(2, later)]);
    let why = again.expect_err("one attempt was allowed");
    assert!(why.starts_with("D1: m was delivered more often"), "{why}");
}
