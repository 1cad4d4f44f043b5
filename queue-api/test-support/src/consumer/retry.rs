//! What a worker does with a message whose handler failed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::consumer::{Context, Failure, FailureKind, Retry, RetryPolicy};

use super::{
    fixture::{Fixture, HOUR, SECOND, msg},
    worker::{PanicsOnDrop, acking_worker, counts, reason, worker},
};
pub(super) async fn what_fails_is_retried_after_the_policys_delay(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let worker = worker(&fixture, |_: String, context: Context| async move {
        match context.attempt() {
            1 | 2 => Err("not yet"),
            _ => Ok(()),
        }
    });
    for (failed, after) in [(1, 0), (1, 60), (0, 120)] {
        let report = worker.run_until_idle().await.unwrap();
        assert_eq!(counts(report), [1 - failed, failed, 0, 0, 0, 0]);
        assert_eq!(fixture.seconds(), after);
        fixture
            .advance(SECOND * 60 - Duration::from_millis(1))
            .await;
    }
}

pub(super) async fn the_default_policy_doubles_with_jitter(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(13)]).await;
    let started = fixture.clock.now();
    let times = Arc::new(Mutex::new(Vec::new()));
    let (clock, noted) = (fixture.clock.clone(), times.clone());
    let worker = worker(&fixture, move |_: String, _: Context| {
        let at = clock.now().duration_since(started).unwrap();
        noted.lock().unwrap().push(at);
        async { Err::<(), _>("never") }
    })
    .with_retry_policy(RetryPolicy::default());
    worker
        .run(fixture.clock.sleep_until(started + HOUR))
        .await
        .unwrap();
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 13);
    for (attempt, pair) in times.windows(2).enumerate() {
        let pause = (pair[1] - pair[0]).as_secs_f64();
        let whole = (2_f64.powi(attempt as i32)).min(600.0);
        assert!(
            pause >= whole / 2.0 && pause <= whole + 0.1,
            "{attempt}: {pause}"
        );
    }
}

pub(super) async fn the_error_may_choose_the_delay(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let worker = worker(&fixture, |_: String, context: Context| async move {
        match context.attempt() {
            1 => Err(Failure::retry_after(SECOND * 500, "busy")),
            _ => Ok(()),
        }
    });
    let stop = fixture.clock.now() + HOUR;
    let seconds = fixture.seconds();
    let running = worker.run(fixture.clock.sleep_until(stop));
    assert_eq!(counts(running.await.unwrap()), [1, 1, 0, 0, 0, 0]);
    assert_eq!(fixture.seconds() - seconds, HOUR.as_secs());
    assert_eq!(fixture.stats().await, Default::default());
}

pub(super) async fn the_error_may_give_up(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let worker = worker(&fixture, |_: String, _: Context| async {
        Err::<(), _>(Failure::give_up("no such customer"))
    });
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [0, 0, 1, 0, 0, 0]);
    assert_eq!(reason(&fixture).await, "no such customer");
}

pub(super) async fn the_last_attempt_ends_in_a_dead_letter_with_the_error(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(2)]).await;
    let worker = worker(&fixture, |_: String, _: Context| async {
        let parsed = "x".parse::<u32>();
        parsed
            .map(drop)
            .map_err(|error| queue_api::Error::invalid("order", "bad").with_source(error))
    });
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [0, 1, 0, 0, 0, 0]);
    fixture.advance(SECOND * 60).await;
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [0, 0, 1, 0, 0, 0]);
    assert_eq!(
        reason(&fixture).await,
        "order: bad: invalid digit found in string"
    );
    assert_eq!(fixture.dead_letters().await[0].attempts, 2);
}

pub(super) async fn a_panic_is_a_failure_and_the_worker_goes_on(fixture: Fixture) {
    let payloads = ["call", "poll", "drop", "fine"];
    fixture.store(&payloads.map(msg)).await;
    let worker = worker(&fixture, |text: String, _: Context| {
        assert_ne!(text, "call");
        let guard = (text == "drop").then(|| PanicsOnDrop);
        async move {
            tokio::task::yield_now().await;
            assert_ne!(text, "poll");
            drop(guard);
            Ok::<_, Failure>(())
        }
    });
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [1, 3, 0, 0, 0, 0]);
    assert_eq!(fixture.stats().await.delayed, 3);
}

/// While a new version of a program is rolled out, the old one cannot decode its messages.
pub(super) async fn what_does_not_decode_is_retried_as_the_policy_says(fixture: Fixture) {
    for (payload, reason) in [
        ("garbage", "the payload cannot be decoded: this is garbage"),
        (
            "bomb",
            "the payload cannot be decoded: panicked: the codec panicked",
        ),
    ] {
        fixture
            .store(&[msg(payload).with_max_attempts(2), msg("fine")])
            .await;
        let worker = acking_worker(&fixture);
        let report = worker.run_until_idle().await.unwrap();
        assert_eq!(counts(report), [1, 1, 0, 0, 0, 0]);
        assert_eq!(fixture.stats().await.delayed, 1);
        fixture.advance(SECOND * 60).await;
        let report = worker.run_until_idle().await.unwrap();
        assert_eq!(counts(report), [0, 0, 1, 0, 0, 0], "the last attempt");
        assert_eq!(self::reason(&fixture).await, reason);
        assert_eq!(fixture.dead_letters().await[0].payload, payload);
        fixture.purge().await;

        // A newer version can decode it.
        fixture.store(&[msg(payload)]).await;
        assert_eq!(worker.run_until_idle().await.unwrap().failed, 1);
        fixture.advance(SECOND * 60).await;
        let delivery = fixture.lease_elsewhere().await.unwrap();
        assert_eq!((delivery.payload, delivery.attempt), (payload.into(), 2));
        fixture.purge().await;
    }
}

#[derive(Debug)]
struct Busy(u32);

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "busy for {} seconds", self.0)
    }
}

impl std::error::Error for Busy {}

pub(super) async fn the_policy_is_told_the_message_and_the_failure(fixture: Fixture) {
    let payloads = [
        "busy", "panics", "hangs", "garbage", "bomb", "after", "never", "last",
    ];
    let messages = payloads.map(|payload| match payload {
        "last" => msg(payload).with_max_attempts(1),
        _ => msg(payload).with_header("to", payload),
    });
    fixture.store(&messages).await;
    let told = Arc::new(Mutex::new(BTreeMap::new()));
    let tells = told.clone();
    let policy = RetryPolicy::custom(move |failed| {
        let (message, failure) = (failed.delivery, failed.failure);
        assert_eq!((message.attempt, message.max_attempts), (1, 25));
        assert_eq!(message.headers["to"], message.id.as_str());
        let busy = failure.error().downcast_ref::<Busy>();
        let text = failure.error().to_string();
        let told = (failure.kind(), busy.map(|busy| busy.0), text);
        tells.lock().unwrap().insert(message.id.to_string(), told);
        Retry::After(HOUR)
    });
    let worker = worker(&fixture, |text: String, _: Context| async move {
        match text.as_str() {
            "panics" => panic!("a bug"),
            "hangs" => std::future::pending().await,
            "after" => Err(Failure::retry_after(HOUR, Busy(1))),
            "never" => Err(Failure::give_up(Busy(2))),
            _ => Err(Busy(3).into()),
        }
    })
    .with_concurrency(payloads.len())
    .with_time_limit(SECOND)
    .with_retry_policy(policy);
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [0, 6, 2, 0, 0, 0]);
    let expected = [
        (
            "bomb",
            FailureKind::Undecodable,
            None,
            "panicked: the codec panicked",
        ),
        ("busy", FailureKind::ByPolicy, Some(3), "busy for 3 seconds"),
        ("garbage", FailureKind::Undecodable, None, "this is garbage"),
        (
            "hangs",
            FailureKind::TimedOut,
            None,
            "the handler exceeded its time limit of 1s",
        ),
        ("panics", FailureKind::Panicked, None, "panicked: a bug"),
    ];
    let expected = expected.map(|(id, kind, busy, text)| (id.into(), (kind, busy, text.into())));
    assert_eq!(*told.lock().unwrap(), BTreeMap::from(expected));
}
