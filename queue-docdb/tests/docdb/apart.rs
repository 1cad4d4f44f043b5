//! Concurrent claims of one instance: each skips what the others are about to take.

use std::{future::pending, time::Duration};

use futures::future::join_all;
use mongodb::event::command::CommandEvent;
use mongodb_test_server::documentdb::Engines;
use queue_api::{Delivery, NewMessage, Queue};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    fixture::{Fixture, applied, ids, lease, message, queue_of},
    pause::{Pause, Stopped},
    round_trips::Sent,
    waking::{STREAMING, open_stream},
};

tests! {
    on_threads:
        a_claim_skips_what_another_is_about_to_take,
        no_wait_ends_for_what_a_claim_is_about_to_take,
        a_wait_beside_a_claim_polls_less_and_less_often,
        a_claim_at_the_head_skips_what_a_claim_in_a_lane_is_about_to_take,
        others_get_what_a_dropped_claim_was_about_to_take,
        a_slow_find_does_not_stop_other_claims,
        callers_of_one_process_do_not_compete
}

const PATIENT: Duration = Duration::from_secs(10);

/// A queue with messages, of an instance that stops at the events that `is_stop` selects.
async fn stopping(
    fixture: &Fixture,
    messages: usize,
    is_stop: impl Fn(&CommandEvent) -> bool + Send + Sync + 'static,
) -> (Pause, Queue) {
    let pause = Pause::default();
    let stops = pause.clone();
    let watched = fixture.watched_and_streaming(move |event| {
        if is_stop(event) {
            stops.stop();
        }
    });
    // A claim that has stopped must not time out, also on a busy machine.
    let watched = watched.operation_timeout(6 * PATIENT);
    let queue = queue_of(&watched.connect().await.unwrap());
    let messages: Vec<_> = names(0..messages).iter().map(|id| message(id)).collect();
    queue.enqueue_batch(&messages).await.unwrap();
    // It knows the queue, so its next find is that of a claim.
    assert_eq!(queue.stats().await.unwrap().ready, messages.len() as u64);
    (pause, queue)
}

/// A claim that has stopped.
async fn stopped_claim(
    pause: &Pause,
    queue: &Queue,
    messages: usize,
) -> (Stopped, JoinHandle<Vec<Delivery>>) {
    let mut stopped = pause.next();
    let queue = queue.clone();
    let claim = tokio::spawn(async move { lease(&queue, messages).await });
    stopped.reached().await;
    (stopped, claim)
}

/// A claim has found messages, and is about to update them.
fn is_update(event: &CommandEvent) -> bool {
    matches!(event, CommandEvent::Started(update) if update.command_name == "update")
}

/// A claim is about to read what it has found.
fn is_find(event: &CommandEvent) -> bool {
    matches!(event, CommandEvent::Succeeded(find) if find.command_name == "find")
}

fn names(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("m{n:03}")).collect()
}

async fn a_claim_skips_what_another_is_about_to_take() {
    let fixture = Fixture::new().await;
    let (pause, queue) = stopping(&fixture, 30, is_update).await;
    let (stopped, first) = stopped_claim(&pause, &queue, 10).await;
    assert_eq!(ids(&lease(&queue, 10).await), names(10..20));
    // Others get what is left, and no more.
    assert_eq!(ids(&lease(&queue, 20).await), names(20..30));
    assert!(lease(&queue, 1).await.is_empty());
    stopped.resume();
    assert_eq!(ids(&first.await.unwrap()), names(0..10));
}

/// A consumer would otherwise lease nothing, wait no time, and lease again without a pause.
async fn no_wait_ends_for_what_a_claim_is_about_to_take() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    let (pause, queue) = stopping(&fixture, 1, is_update).await;
    let (stopped, dropped) = stopped_claim(&pause, &queue, 1).await;
    assert!(lease(&queue, 1).await.is_empty());
    let mut waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.wait(PATIENT * 6).await }
    });
    // The wait looks again when the stream is open, and then no more.
    open_stream(&fixture).await;
    let early = timeout(Duration::from_millis(500), &mut waiting).await;
    assert!(early.is_err(), "the only message is about to be taken");
    dropped.abort();
    stopped.resume();
    // On a busy machine its answer may come before the task yields.
    if let Ok(taken) = dropped.await {
        for delivery in taken {
            applied(queue.release(&delivery.receipt)).await;
        }
    }
    // A claim that took nothing is not in the stream.
    let woken = timeout(PATIENT, waiting).await;
    woken.expect("the claim ended").unwrap().unwrap();
    assert_eq!(lease_in_the_end(&fixture, &queue, 1).await, names(0..1));
}

/// The claim under way is no sign that a message will come in soon.
async fn a_wait_beside_a_claim_polls_less_and_less_often() {
    const LONG_PAUSE: Duration = Duration::from_millis(500);
    let fixture = Fixture::new().await;
    let pause = Pause::default();
    let (find, mut finds) = mpsc::unbounded_channel();
    let stops = pause.clone();
    let watched = fixture.watched(move |event| match event {
        CommandEvent::Started(sent) if sent.command_name == "find" => {
            let _ = find.send(Instant::now());
        }
        _ if is_update(event) => stops.stop(),
        _ => {}
    });
    // A claim that has stopped must not time out, also on a busy machine.
    let watched = watched.operation_timeout(6 * PATIENT);
    let queue = queue_of(&watched.connect().await.unwrap());
    queue.enqueue(&message("a")).await.unwrap();
    let (stopped, claim) = stopped_claim(&pause, &queue, 1).await;
    while finds.try_recv().is_ok() {}
    let waiting = tokio::spawn(async move { queue.wait(PATIENT * 6).await });
    let mut last = finds.recv().await.unwrap();
    let mut pauses = Vec::new();
    while pauses.last().is_none_or(|pause| *pause < LONG_PAUSE) {
        assert!(pauses.len() < 15, "{pauses:.0?}");
        let next = finds.recv().await.unwrap();
        pauses.push(next - last);
        last = next;
    }
    stopped.resume();
    assert_eq!(claim.await.unwrap().len(), 1);
    waiting.abort();
}

/// Otherwise the claim at the head would lose messages, and stay in the lanes.
async fn a_claim_at_the_head_skips_what_a_claim_in_a_lane_is_about_to_take() {
    let fixture = Fixture::new().await;
    let (pause, queue) = stopping(&fixture, 400, is_update).await;
    let other = fixture.queue();
    // It finds the first messages, and another instance takes one of them.
    let (stopped, losing) = stopped_claim(&pause, &queue, 10).await;
    assert_eq!(lease(&other, 1).await.len(), 1);
    stopped.resume();
    assert_eq!(losing.await.unwrap().len(), 9);
    // The next claim is in a lane, and stopped until later ones are back at the head.
    let (stopped, in_a_lane) = stopped_claim(&pause, &queue, 10).await;
    // After at most a second, a claim looks at the head again.
    let longer_than_lanes = timeout(Duration::from_millis(1100), pending::<()>());
    assert!(longer_than_lanes.await.is_err());
    let at_the_head = lease(&queue, 50).await;
    assert_eq!(at_the_head.len(), 50, "nothing was lost");
    stopped.resume();
    assert_eq!(in_a_lane.await.unwrap().len(), 10);
}

async fn others_get_what_a_dropped_claim_was_about_to_take() {
    let fixture = Fixture::new().await;
    let (pause, queue) = stopping(&fixture, 20, is_find).await;
    let (stopped, dropped) = stopped_claim(&pause, &queue, 10).await;
    dropped.abort();
    stopped.resume();
    // On a busy machine its answer may come before the task yields.
    let _ = dropped.await;
    assert_eq!(lease_in_the_end(&fixture, &queue, 20).await, names(0..20));
}

/// What a dropped claim took after all is ready again when its lease has expired.
async fn lease_in_the_end(fixture: &Fixture, queue: &Queue, messages: usize) -> Vec<String> {
    let mut leased = lease(queue, messages).await;
    if leased.len() < messages {
        fixture
            .clock
            .advance(NewMessage::DEFAULT_VISIBILITY_TIMEOUT);
        leased.extend(lease(queue, messages).await);
    }
    let mut leased: Vec<_> = leased.iter().map(|it| it.id.to_string()).collect();
    leased.sort_unstable();
    leased.dedup();
    leased
}

async fn a_slow_find_does_not_stop_other_claims() {
    let fixture = Fixture::new().await;
    let (pause, queue) = stopping(&fixture, 20, is_find).await;
    let (stopped, slow) = stopped_claim(&pause, &queue, 10).await;
    let quick = timeout(PATIENT, lease(&queue, 10)).await;
    assert_eq!(
        ids(&quick.expect("it does not wait for long")),
        names(0..10)
    );
    stopped.resume();
    let others = slow.await.unwrap();
    let mut others = ids(&others);
    others.sort_unstable();
    assert_eq!(others, names(10..20));
}

/// No claim loses messages, so none needs a third command to find out what it has taken.
async fn callers_of_one_process_do_not_compete() {
    const CALLERS: usize = 8;
    let fixture = Fixture::new().await;
    let (sent, queue) = Sent::by_another(&fixture).await;
    let messages: Vec<_> = names(0..CALLERS * 10)
        .iter()
        .map(|id| message(id))
        .collect();
    queue.enqueue_batch(&messages).await.unwrap();
    sent.take();
    let began = Instant::now();
    let callers = (0..CALLERS).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move { lease(&queue, 10).await })
    });
    let leased = join_all(callers.collect::<Vec<_>>()).await;
    let leased: Vec<usize> = leased.into_iter().map(|it| it.unwrap().len()).collect();
    // On a slow machine, claims stop waiting for each other's finds.
    let was_slow = began.elapsed() > Duration::from_millis(900);
    assert!(leased == [10; CALLERS] || was_slow, "{leased:?}");
    let (finds, updates): (Vec<_>, Vec<_>) =
        sent.names().into_iter().partition(|name| name == "find");
    let sent = (finds.len(), updates.len());
    assert!(sent == (CALLERS, CALLERS) || was_slow, "{sent:?}");
}
