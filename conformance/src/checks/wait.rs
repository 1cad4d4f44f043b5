//! W1: waits. A wait may return early, so nearly all of these checks only demand that it returns.

use std::{future::Future, time::Duration};

use futures::future::join_all;
use queue_api::{LeaseAction, Purge, Redrive};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use crate::{
    fixture::{Fixture, OneQueue, dead_letter, extend, ids, msg, nack, receipts},
    panic_location::{Panic, called_from_here, caught},
    poll_at_most::telling_first_poll,
};

/// Longer than any check may take, so a wait does not return just because its time is up.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// A wait on another task.
struct Waiting {
    queue: OneQueue,
    task: JoinHandle<Result<(), Panic>>,
}

impl Waiting {
    #[track_caller]
    fn ends(self) -> impl Future<Output = ()> {
        called_from_here(async move {
            let ended = self.queue.wait_ends(self.task).await;
            let ended = ended.expect("panics are caught");
            ended.unwrap_or_else(|panic| panic.resume());
        })
    }
}

/// Starts a wait. It has certainly begun, and had the time of some round trips.
async fn start_waiting(queue: &OneQueue) -> Waiting {
    start_waiting_for(queue, FOR_EVER).await
}

async fn start_waiting_for(queue: &OneQueue, at_most: Duration) -> Waiting {
    let waiter = queue.clone();
    let (begun, has_begun) = oneshot::channel();
    let task = tokio::spawn(caught(async move {
        let wait = waiter.backend().wait(&waiter.name, at_most);
        let ended = telling_first_poll(wait, begun).await;
        ended.expect("wait succeeds");
    }));
    let queue = queue.clone();
    let waiting = Waiting { queue, task };
    if has_begun.await.is_err() {
        // It panicked. `ends` reports it.
        return waiting;
    }
    round_trips(&waiting.queue).await;
    waiting
}

/// Gives a waiter the time of some round trips.
async fn round_trips(queue: &OneQueue) {
    for _ in 0..5 {
        queue.stats().await;
        tokio::task::yield_now().await;
    }
}

pub(super) async fn wait_returns_at_once_when_something_is_ready(fixture: Fixture) {
    let delayed = msg("delayed").with_delay(Duration::from_secs(5));
    fixture.store(&[msg("m"), delayed]).await;
    expect_no_wait(&fixture, "stored").await;
    fixture.lease_for(1, 3_600_000).await;
    fixture.pass(5000).await;
    expect_no_wait(&fixture, "its delay has passed").await;
    fixture.lease_one().await;
    fixture.pass(10_000).await;
    expect_no_wait(&fixture, "its lease has expired").await;
}

/// The shortest of several waits counts, because a busy machine makes some longer. A slow store has the time
/// of ten stats more.
async fn expect_no_wait(fixture: &Fixture, why_ready: &str) {
    let mut most = Duration::ZERO;
    for _ in 0..10 {
        let begun = Instant::now();
        fixture.stats().await;
        most = fixture.timeout() / 60 + begun.elapsed() * 10;
        let begun = Instant::now();
        let ended = fixture.backend().wait(&fixture.name, FOR_EVER);
        fixture.wait_ends(ended).await.expect("wait succeeds");
        if begun.elapsed() < most {
            return;
        }
    }
    panic!("a message is ready ({why_ready}), but each wait takes more than {most:?}");
}

pub(super) async fn wait_wakes_on_an_enqueue(fixture: Fixture) {
    let waits = [start_waiting(&fixture).await, start_waiting(&fixture).await];
    fixture.store(&[msg("m")]).await;
    for waiting in waits {
        waiting.ends().await;
    }
}

pub(super) async fn wait_wakes_on_an_enqueue_elsewhere(fixture: Fixture) {
    let waiting = start_waiting(&fixture).await;
    fixture.reconnect().await.store(&[msg("m")]).await;
    waiting.ends().await;
}

pub(super) async fn wait_wakes_when_a_delay_ends(fixture: Fixture) {
    fixture
        .store(&[msg("m").with_delay(Duration::from_secs(7200))])
        .await;
    let waiting = start_waiting(&fixture).await;
    fixture.pass(7_200_000).await;
    waiting.ends().await;
    assert_eq!(ids(&fixture.lease(10).await), ["m"]);
}

pub(super) async fn wait_wakes_when_a_lease_ends(fixture: Fixture) {
    fixture
        .store(&[msg("m"), msg("late").with_delay(Duration::from_secs(7200))])
        .await;
    fixture.lease_one().await;
    let waiting = start_waiting(&fixture).await;
    fixture.pass(10_000).await;
    waiting.ends().await;
}

pub(super) async fn wait_wakes_when_a_shortened_lease_ends(fixture: Fixture) {
    fixture
        .store(&[msg("m").with_visibility_timeout(Duration::from_secs(7200))])
        .await;
    let delivery = fixture.lease_one().await;
    let waiting = start_waiting(&fixture).await;
    assert!(
        fixture
            .change(&delivery.receipt, extend(10_000))
            .await
            .is_applied()
    );
    fixture.pass(10_000).await;
    waiting.ends().await;
}

pub(super) async fn wait_wakes_on_an_extension_by_zero(fixture: Fixture) {
    fixture
        .store(&[msg("m").with_visibility_timeout(Duration::from_secs(7200))])
        .await;
    let delivery = fixture.lease_one().await;
    let waiting = start_waiting(&fixture).await;
    let extended = fixture.change(&delivery.receipt, extend(0)).await;
    assert!(extended.is_applied());
    waiting.ends().await;
}

pub(super) async fn wait_wakes_on_a_redrive(fixture: Fixture) {
    fixture.store(&[msg("m")]).await;
    let delivery = fixture.lease_one().await;
    assert!(
        fixture
            .change(&delivery.receipt, dead_letter("for now"))
            .await
            .is_applied()
    );
    let waiting = start_waiting(&fixture).await;
    assert_eq!(fixture.redrive(&Redrive::All).await, 1);
    waiting.ends().await;
}

/// The wait begins when nothing is due, and learns then what will be.
pub(super) async fn wait_wakes_after_a_delayed_enqueue(fixture: Fixture) {
    let late = msg("late").with_delay(Duration::from_secs(7200));
    let waits = [
        start_waiting(&fixture).await,
        start_waiting(&fixture.other_queue("other")).await,
    ];
    let queues = [&*fixture, &fixture.other_queue("other")];
    queues[1].store(&[late]).await;
    for queue in queues {
        queue
            .store(&[msg("m").with_delay(Duration::from_secs(5))])
            .await;
        round_trips(queue).await;
    }
    fixture.pass(5000).await;
    for waiting in waits {
        waiting.ends().await;
    }
}

/// A message without attempts left is ready until a lease call makes it a dead letter (S1, D1).
pub(super) async fn wait_returns_when_an_exhausted_message_is_ready(fixture: Fixture) {
    fixture.store(&[msg("m").with_max_attempts(1)]).await;
    fixture.lease_one().await;
    let waiting = start_waiting(&fixture).await;
    fixture.pass(10_000).await;
    waiting.ends().await;
    start_waiting(&fixture).await.ends().await;
    fixture.expect_none_ready("one attempt was allowed").await;
    let waiting = start_waiting(&fixture).await;
    fixture.store(&[msg("n")]).await;
    waiting.ends().await;
}

pub(super) async fn wait_goes_on_when_the_queue_is_emptied(fixture: Fixture) {
    for how in ["ack", "dead letter"] {
        fixture.store(&[msg(how)]).await;
        let receipt = fixture.lease_one().await.receipt;
        let waiting = start_waiting(&fixture).await;
        let settled = match how {
            "ack" => fixture.ack(&receipt).await,
            _ => fixture.change(&receipt, dead_letter("no")).await,
        };
        assert!(settled.is_applied());
        round_trips(&fixture).await;
        fixture.store(&[msg("next")]).await;
        waiting.ends().await;
        let next = fixture.lease_one().await;
        assert!(fixture.ack(&next.receipt).await.is_applied());
    }
}

pub(super) async fn wait_outlives_its_queue(fixture: Fixture) {
    for how in ["purge", "delete", "delete, and enqueue elsewhere"] {
        let late = msg("late").with_delay(Duration::from_secs(7200));
        fixture.store(&[late]).await;
        let waiting = start_waiting(&fixture).await;
        match how {
            "purge" => drop(fixture.purge(Purge::Live).await),
            _ => fixture.delete().await,
        }
        round_trips(&fixture).await;
        let elsewhere = fixture.reconnect().await;
        let producer = if how.ends_with("elsewhere") {
            &elsewhere
        } else {
            &fixture
        };
        producer.store(&[msg("m")]).await;
        waiting.ends().await;
        fixture.delete().await;
    }
}

pub(super) async fn wait_for_ever_wakes_on_an_enqueue(fixture: Fixture) {
    let waiting = start_waiting_for(&fixture, Duration::MAX).await;
    fixture.store(&[msg("m")]).await;
    waiting.ends().await;
}

pub(super) async fn wait_wakes_on_a_nack_or_release(fixture: Fixture) {
    fixture
        .store(&[msg("m").with_visibility_timeout(Duration::from_secs(7200))])
        .await;
    for action in [nack(0), LeaseAction::Release] {
        let delivery = fixture.lease_one().await;
        let waiting = start_waiting(&fixture).await;
        let changed = fixture.change(&delivery.receipt, action).await;
        assert!(changed.is_applied());
        waiting.ends().await;
    }
}

pub(super) async fn wait_ends_after_the_time_given(fixture: Fixture) {
    fixture
        .store(&[msg("late").with_delay(Duration::from_secs(3600))])
        .await;
    for millis in [0, 1, 250] {
        let at_most = Duration::from_millis(millis);
        let ended = fixture.backend().wait(&fixture.name, at_most);
        fixture.wait_ends(ended).await.expect("wait succeeds");
    }
}

/// A caller waits in a loop, which must not spin. How long a wait lasts on a busy machine does not
/// matter: it may only last longer.
pub(super) async fn wait_waits_while_nothing_is_ready(fixture: Fixture) {
    const STATES: [&str; 8] = [
        "unused",
        "delayed",
        "leased",
        "nacked",
        "exhausted",
        "rejected",
        "acked",
        "purged",
    ];
    for state in STATES {
        leave_nothing_ready(&fixture.other_queue(state), state).await;
    }
    // Side by side, because each takes its time. No other call may wake them now.
    let waits = STATES.map(async |state| {
        expect_wait(&fixture.other_queue(state), fixture.timeout() / 30).await;
    });
    join_all(waits).await;
}

/// Brings a message into this state.
async fn leave_nothing_ready(queue: &OneQueue, state: &str) {
    let message = match state {
        "unused" => return,
        "delayed" => msg("m").with_delay(Duration::from_secs(7200)),
        "exhausted" => msg("m").with_max_attempts(1),
        _ => msg("m"),
    };
    queue.store(&[message]).await;
    if state == "purged" && queue.has_admin() {
        queue.purge(Purge::Live).await;
    }
    if state == "exhausted" {
        // The next lease makes it a dead letter.
        queue.lease_for(1, 0).await;
    }
    let leased = receipts(queue.lease(1).await);
    let settled = match state {
        "nacked" => queue.change(&leased[0], nack(7_200_000)).await,
        "rejected" => queue.change(&leased[0], dead_letter("no")).await,
        "acked" => queue.ack(&leased[0]).await,
        _ => return,
    };
    assert!(settled.is_applied());
}

/// A wait may return early, but not every time.
async fn expect_wait(queue: &OneQueue, at_most: Duration) {
    const TRIES: usize = 20;
    let at_most = at_most.min(Duration::from_secs(2));
    for _ in 0..TRIES {
        let begun = Instant::now();
        let ended = queue.backend().wait(&queue.name, at_most);
        queue.wait_ends(ended).await.expect("wait succeeds");
        if begun.elapsed() >= at_most / 2 {
            return;
        }
    }
    let stats = queue.stats().await;
    let name = &queue.name;
    panic!("queue {name}: each of {TRIES} waits returned early, and nothing is ready: {stats:?}");
}

/// An hour does not pass in real time, so only the backend's clock ends these waits.
pub(super) async fn wait_ends_by_the_backends_clock(fixture: Fixture) {
    let late = fixture.other_queue("late");
    let delay = fixture.backend().limits().max_delay;
    late.store(&[msg("late").with_delay(delay)]).await;
    let hour = Duration::from_secs(3600);
    let waits = [
        start_waiting_for(&fixture, hour).await,
        start_waiting_for(&late, hour).await,
    ];
    let end = async {
        for waiting in waits {
            waiting.ends().await;
        }
    };
    // Again and again, because a wait may still be about to read the clock.
    let pass = async {
        loop {
            fixture.pass(3_600_000).await;
            pause().await;
        }
    };
    tokio::select! {
        () = end => {}
        () = pass => {}
    }
}

/// In real time, so that a wait that polls can look.
#[allow(clippy::disallowed_methods)]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// A test may stop the backend's clock. Then real time ends the wait.
pub(super) async fn wait_ends_while_the_clock_stands_still(fixture: Fixture) {
    let wait = async |queue: &OneQueue| {
        for millis in [0, 1, 250] {
            let at_most = Duration::from_millis(millis);
            let ended = queue.backend().wait(&queue.name, at_most);
            queue.wait_ends(ended).await.expect("wait succeeds");
        }
    };
    wait(&fixture.other_queue("empty")).await;
    fixture
        .store(&[msg("late").with_delay(Duration::from_millis(1))])
        .await;
    wait(&fixture).await;
    fixture.expect_none_ready("the clock stands still").await;
}

pub(super) async fn a_lease_that_waits_gets_what_is_enqueued_elsewhere(fixture: Fixture) {
    let waiter = fixture.handle();
    let waiting = tokio::spawn(async move { waiter.lease_within(FOR_EVER).await });
    round_trips(&fixture).await;
    fixture.reconnect().await.store(&[msg("m")]).await;
    let leased = fixture.wait_ends(waiting).await.expect("no panic");
    let leased = leased.expect("lease succeeds");
    assert_eq!(leased.expect("the message").id.as_str(), "m");
}

pub(super) async fn a_lease_that_waits_ends_empty(fixture: Fixture) {
    fixture.store(&[msg("leased")]).await;
    fixture.lease_one().await;
    let queue = fixture.handle();
    for millis in [0, 1, 250] {
        let waited = queue.lease_within(Duration::from_millis(millis));
        let leased = fixture.wait_ends(waited).await;
        assert_eq!(leased.expect("lease succeeds"), None);
    }
}

pub(super) async fn wait_wakes_when_due_in_real_time(fixture: Fixture) {
    fixture
        .store(&[msg("m").with_delay(Duration::from_millis(700))])
        .await;
    while fixture.lease(1).await.is_empty() {
        let wait = fixture.backend().wait(&fixture.name, FOR_EVER);
        fixture.wait_ends(wait).await.expect("wait succeeds");
    }
}
