//! What a worker does with each outcome of its handler.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use queue_api::{
    Bytes, Codec, CodecError, DeadReason, NewMessage,
    consumer::{BoxHandler, Context, Failure, Handler, Report, Retry, RetryPolicy, Worker},
};

use super::fixture::{Fixture, HOUR, SECOND, VISIBILITY, msg};
use crate::Operation;

/// A codec for text. It rejects `garbage` and panics on `bomb`.
#[derive(Debug)]
pub(super) struct Text;

impl Codec<String> for Text {
    fn encode(&self, value: &String) -> Result<Bytes, CodecError> {
        Ok(value.clone().into())
    }

    fn decode(&self, payload: &Bytes) -> Result<String, CodecError> {
        match std::str::from_utf8(payload)? {
            "garbage" => Err("this is garbage".into()),
            "bomb" => panic!("the codec panicked"),
            text => Ok(text.to_owned()),
        }
    }
}

/// A worker on the fixture's queue and clock that retries after a minute.
pub(super) fn worker<H: Handler<String>>(fixture: &Fixture, handler: H) -> Worker<String, H, Text> {
    let minute = RetryPolicy::custom(|_| Retry::After(SECOND * 60));
    let options = queue_api::consumer::ListenOptions::new(4).with_clock(fixture.clock.clone());
    Worker::new(fixture.queue.clone(), handler)
        .with_codec(Text)
        .with_listen_options(options)
        .with_retry_policy(minute)
}

/// A worker whose handler succeeds at once.
pub(super) fn acking_worker(fixture: &Fixture) -> Worker<String, impl Handler<String>, Text> {
    worker(fixture, |_: String, _: Context| async {
        Ok::<_, Failure>(())
    })
}

/// The counts of a report: handled, failed, dead-lettered, released, lost, unsettled.
pub(super) fn counts(report: Report) -> [u64; 6] {
    [
        report.handled,
        report.failed,
        report.dead_lettered,
        report.released,
        report.lost,
        report.unsettled,
    ]
}

pub(super) struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

pub(super) async fn reason(fixture: &Fixture) -> String {
    let dead = fixture.dead_letters().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    match &dead[0].reason {
        DeadReason::Rejected(reason) => reason.clone(),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn what_is_handled_is_acked(fixture: Fixture) {
    fixture.store_many(20).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_handler = seen.clone();
    let worker = worker(&fixture, move |text: String, context: Context| {
        let seen = seen_by_handler.clone();
        async move {
            assert_eq!(context.id().as_str(), text);
            assert_eq!((context.attempt(), context.max_attempts()), (1, 25));
            seen.lock().unwrap().push(text);
            Ok::<_, Failure>(())
        }
    });
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [20, 0, 0, 0, 0, 0]);
    assert_eq!(seen.lock().unwrap().len(), 20);
    assert_eq!(fixture.stats().await, Default::default());
}

pub(super) async fn it_handles_as_many_at_a_time_as_its_concurrency(fixture: Fixture) {
    fixture.store_many(20).await;
    let running = Arc::new(AtomicUsize::new(0));
    let clock = fixture.clock.clone();
    let worker = worker(&fixture, move |_: String, _: Context| {
        let (running, clock) = (running.clone(), clock.clone());
        async move {
            let now = running.fetch_add(1, Ordering::Relaxed) + 1;
            assert!(now <= 4, "{now} at a time");
            clock.sleep_until(clock.now() + SECOND * 10).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Failure>(())
        }
    });
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [20, 0, 0, 0, 0, 0]);
    assert_eq!(fixture.seconds(), 50, "four at a time, and not fewer");
}

pub(super) async fn handlers_that_end_together_share_a_call(fixture: Fixture) {
    fixture.store_many(64).await;
    let handle = |number: String, _: Context| async move {
        for _ in 0..number.parse::<usize>()? {
            tokio::task::yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    let worker = worker(&fixture, handle).with_concurrency(64);
    assert_eq!(worker.run_until_idle().await.unwrap().handled, 64);
    assert_eq!(fixture.faulty.calls(Operation::Ack), [64]);
}

pub(super) async fn a_handler_over_its_time_limit_is_cancelled(fixture: Fixture) {
    fixture.store(&[msg("hangs"), msg("fine")]).await;
    let worker = worker(&fixture, |text: String, _: Context| async move {
        let _guard = (text == "hangs").then(|| PanicsOnDrop);
        if text == "hangs" {
            std::future::pending::<()>().await;
        }
        Ok::<_, Failure>(())
    })
    .with_time_limit(SECOND * 100);
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [1, 1, 0, 0, 0, 0]);
    assert_eq!(fixture.seconds(), 100, "which is longer than the lease");
    assert_eq!(fixture.stats().await.delayed, 1);
}

pub(super) async fn a_long_handler_keeps_its_message(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let clock = fixture.clock.clone();
    let worker = worker(&fixture, move |_: String, context: Context| {
        let clock = clock.clone();
        async move {
            let ended = context.ended();
            tokio::select! {
                end = ended => Err(format!("ended: {end:?}")),
                () = clock.sleep_until(clock.now() + HOUR) => Ok(()),
            }
        }
    });
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [1, 0, 0, 0, 0, 0]);
}

pub(super) async fn a_handler_learns_that_its_lease_ended(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let (store, other) = (fixture.faulty.clone(), fixture.elsewhere.clone());
    let worker = worker(&fixture, move |_: String, context: Context| {
        let (store, other) = (store.clone(), other.clone());
        async move {
            store.go_down();
            context.ended().await;
            let delivery = other.lease().await.unwrap().expect("the lease expired");
            assert_eq!(delivery.attempt, 2);
            store.clear();
            Ok::<_, Failure>(())
        }
    });
    let stop = fixture.clock.now() + VISIBILITY + SECOND * 15;
    let report = worker.run(fixture.clock.sleep_until(stop)).await.unwrap();
    assert_eq!(
        counts(report),
        [0, 0, 0, 0, 1, 0],
        "another consumer has the message"
    );
}

pub(super) async fn a_store_that_is_down_too_long_leaves_it_unsettled(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let store = fixture.faulty.clone();
    let worker = worker(&fixture, move |_: String, _: Context| {
        store.go_down();
        async { Ok::<_, Failure>(()) }
    });
    let stop = fixture.clock.now() + HOUR;
    let report = worker.run(fixture.clock.sleep_until(stop)).await.unwrap();
    assert_eq!(counts(report), [0, 0, 0, 0, 0, 1]);
}

pub(super) async fn until_idle_includes_what_handlers_enqueue(fixture: Fixture) {
    fixture.store(&[msg("5")]).await;
    let queue = fixture.elsewhere.clone();
    let worker = worker(&fixture, move |text: String, _: Context| {
        let queue = queue.clone();
        async move {
            let left: u32 = text.parse()?;
            if left > 0 {
                queue.enqueue(&msg(&(left - 1).to_string())).await?;
            }
            Ok::<_, Failure>(())
        }
    });
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [6, 0, 0, 0, 0, 0]);
    assert_eq!(fixture.seconds(), 0);
}

pub(super) async fn until_idle_ignores_delayed_and_leased_messages(fixture: Fixture) {
    fixture
        .store(&[msg("later").with_delay(HOUR), msg("leased"), msg("now")])
        .await;
    let leased = fixture.lease_elsewhere().await.unwrap();
    let worker = acking_worker(&fixture);
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [1, 0, 0, 0, 0, 0]);
    assert_eq!(fixture.seconds(), 0);
    assert!(
        fixture
            .elsewhere
            .ack(&leased.receipt)
            .await
            .unwrap()
            .is_applied()
    );
    fixture.advance(HOUR * 24).await;
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [1, 0, 0, 0, 0, 0], "a day later");
}

pub(super) async fn until_idle_on_an_empty_queue_polls_once(fixture: Fixture) {
    let worker = acking_worker(&fixture);
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [0; 6]);
    assert!(fixture.faulty.calls(Operation::Lease).len() <= 2);
    assert_eq!(fixture.seconds(), 0);
}

pub(super) async fn json_is_the_default(fixture: Fixture) {
    let json = NewMessage::new("{\"to\":\"ada\"}");
    fixture.store(&[json, NewMessage::new("{")]).await;
    let handler = |mail: std::collections::BTreeMap<String, String>, _: Context| async move {
        assert_eq!(mail["to"], "ada");
        Ok::<_, Failure>(())
    };
    let worker = Worker::new(fixture.queue.clone(), handler);
    let report = worker.run_until_idle().await.unwrap();
    assert_eq!(counts(report), [1, 1, 0, 0, 0, 0]);
}

/// A handler with state.
struct Counting {
    seen: Arc<AtomicUsize>,
    fails: bool,
}

impl Handler<String> for Counting {
    async fn handle(&self, _: String, context: Context) -> Result<(), Failure> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        match self.fails {
            true => Err(format!("attempt {}", context.attempt()).into()),
            false => Ok(()),
        }
    }
}

pub(super) async fn a_handler_may_have_state_and_be_shared_or_boxed(fixture: Fixture) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counting = |fails| Counting {
        seen: seen.clone(),
        fails,
    };
    let shared = Arc::new(counting(false));
    let boxed = [false, true].map(|fails| BoxHandler::new(counting(fails)));
    let [boxed, boxed_and_fails] = boxed;
    fixture.store_many(2).await;
    let plain = worker(&fixture, counting(false)).run_until_idle().await;
    assert_eq!(counts(plain.unwrap()), [2, 0, 0, 0, 0, 0]);
    fixture.store_many(2).await;
    let of_arc = worker(&fixture, shared.clone()).run_until_idle().await;
    assert_eq!(counts(of_arc.unwrap()), [2, 0, 0, 0, 0, 0]);
    fixture.store_many(2).await;
    let of_box = worker(&fixture, boxed).run_until_idle().await;
    assert_eq!(counts(of_box.unwrap()), [2, 0, 0, 0, 0, 0]);
    assert_eq!(shared.seen.load(Ordering::Relaxed), 6);

    fixture.store(&[msg("m").with_max_attempts(1)]).await;
    let failed = worker(&fixture, boxed_and_fails).run_until_idle().await;
    assert_eq!(counts(failed.unwrap()), [0, 0, 1, 0, 0, 0]);
    assert_eq!(reason(&fixture).await, "attempt 1");
}
