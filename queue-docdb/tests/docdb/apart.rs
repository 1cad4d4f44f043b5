//! Claims of one instance keep apart.

use std::time::Duration;

use futures::future::join_all;
use mongodb::event::command::CommandEvent;
use queue_api::Queue;
use tokio::time::{Instant, timeout};

use crate::{
    fixture::{Fixture, ids, lease, message, queue_of},
    pause::Pause,
    round_trips::Sent,
};

const PATIENT: Duration = Duration::from_secs(10);

/// A queue of so many messages, and an instance that has used it, which stops where it is told.
async fn stopping(
    fixture: &Fixture,
    messages: usize,
    is_stop: impl Fn(&CommandEvent) -> bool + Send + Sync + 'static,
) -> (Pause, Queue) {
    let pause = Pause::default();
    let stops = pause.clone();
    let watched = fixture.watched(move |event| {
        if is_stop(event) {
            stops.come_by();
        }
    });
    let queue = queue_of(&watched.connect().await.unwrap());
    let messages: Vec<_> = names(0..messages).iter().map(|id| message(id)).collect();
    queue.enqueue_batch(&messages).await.unwrap();
    // It knows the queue, so that its next find is that of a claim.
    assert_eq!(queue.stats().await.unwrap().ready, messages.len() as u64);
    (pause, queue)
}

fn names(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("m{n:03}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_looks_behind_what_another_is_about_to_take() {
    let fixture = Fixture::new().await;
    let is_update = |event: &CommandEvent| matches!(event, CommandEvent::Started(update) if update.command_name == "update");
    let (pause, queue) = stopping(&fixture, 30, is_update).await;
    let mut stopped = pause.next();
    let first = tokio::spawn({
        let queue = queue.clone();
        async move { lease(&queue, 10).await }
    });
    stopped.reached().await;
    assert_eq!(ids(&lease(&queue, 10).await), names(10..20));
    // What is left is all that there is for others.
    assert_eq!(ids(&lease(&queue, 20).await), names(20..30));
    assert!(lease(&queue, 1).await.is_empty());
    stopped.go_on();
    assert_eq!(ids(&first.await.unwrap()), names(0..10));
}

/// Whoever waits would otherwise lease nothing, wait for nothing, and lease again without a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_woken_for_what_another_is_about_to_take() {
    let fixture = Fixture::new().await;
    let is_update = |event: &CommandEvent| matches!(event, CommandEvent::Started(update) if update.command_name == "update");
    let (pause, queue) = stopping(&fixture, 1, is_update).await;
    let mut stopped = pause.next();
    let first = tokio::spawn({
        let queue = queue.clone();
        async move { queue.lease().await.unwrap().expect("one is ready") }
    });
    stopped.reached().await;
    assert!(lease(&queue, 1).await.is_empty());
    let mut waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.wait(PATIENT * 6).await }
    });
    let early = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "nothing is there for it");
    stopped.go_on();
    let taken = first.await.unwrap();
    // It looks when the first one is through, and learns when that lease ends.
    fixture.clock.advance(taken.visibility_timeout);
    let woken = timeout(PATIENT, waiting).await;
    woken.expect("the lease has run out").unwrap().unwrap();
    assert_eq!(lease(&queue, 1).await[0].attempt, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dropped_claim_was_about_to_take_is_there_for_others() {
    let fixture = Fixture::new().await;
    let is_find = |event: &CommandEvent| matches!(event, CommandEvent::Succeeded(find) if find.command_name == "find");
    let (pause, queue) = stopping(&fixture, 20, is_find).await;
    let mut stopped = pause.next();
    let dropped = tokio::spawn({
        let queue = queue.clone();
        async move { lease(&queue, 10).await }
    });
    stopped.reached().await;
    dropped.abort();
    stopped.go_on();
    assert!(dropped.await.unwrap_err().is_cancelled());
    assert_eq!(ids(&lease(&queue, 20).await), names(0..20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_look_that_takes_long_keeps_nobody_from_looking() {
    let fixture = Fixture::new().await;
    let is_find = |event: &CommandEvent| matches!(event, CommandEvent::Succeeded(find) if find.command_name == "find");
    let (pause, queue) = stopping(&fixture, 20, is_find).await;
    let mut stopped = pause.next();
    let slow = tokio::spawn({
        let queue = queue.clone();
        async move { lease(&queue, 10).await }
    });
    stopped.reached().await;
    let quick = timeout(PATIENT, lease(&queue, 10)).await;
    assert_eq!(
        ids(&quick.expect("it does not wait for long")),
        names(0..10)
    );
    stopped.go_on();
    let others = slow.await.unwrap();
    let mut others = ids(&others);
    others.sort_unstable();
    assert_eq!(others, names(10..20));
}

/// No claim loses anything, so none takes a third command to find out what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
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
    // On a machine that is this slow they stop waiting for each other.
    let was_slow = began.elapsed() > Duration::from_millis(900);
    assert!(leased == [10; CALLERS] || was_slow, "{leased:?}");
    let (finds, updates): (Vec<_>, Vec<_>) =
        sent.names().into_iter().partition(|name| name == "find");
    let sent = (finds.len(), updates.len());
    assert!(sent == (CALLERS, CALLERS) || was_slow, "{sent:?}");
}
