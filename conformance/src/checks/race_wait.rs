//! W1 and C1: a wait that is stopped at each of its await points while its reason to end comes.

use std::{future::Future, pin::Pin, time::Duration};

use queue_api::{Receipt, Redrive, Result};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    fixture::{Fixture, extend, msg, nack},
    poll_at_most::{every_await_point, poll_at_most},
    race::{STOPPED, while_stopped},
};

/// Longer than any check may take, so a wait does not return just because its time is up.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

type Wait<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

fn wait(fixture: &Fixture) -> Wait<'_> {
    Box::pin(fixture.backend().wait(&fixture.name, FOR_EVER))
}

/// Whether there is a later point at which a wait can be stopped.
#[derive(PartialEq)]
enum Later {
    Perhaps,
    No,
}

/// Polls a wait this often, or until the store has answered other calls for so long that nothing
/// wakes it.
async fn stop<'a>(fixture: &'a Fixture, polls: usize, wait: &mut Wait<'a>) -> Later {
    const ANSWERS: usize = 10;
    let queue = fixture.clone();
    // On a task, so that the answers do not poll the wait.
    let mut answers = JoinSet::new();
    answers.spawn(async move {
        for _ in 0..ANSWERS {
            // Another stopped wait may hold what it needs.
            if timeout(STOPPED, queue.stats()).await.is_err() {
                return;
            }
        }
    });
    tokio::select! {
        biased;
        ended = poll_at_most(polls, Pin::new(wait)) => match ended {
            None => Later::Perhaps,
            Some(ended) => {
                // It may return early for no reason. Then it is as if it had not begun.
                ended.expect("wait succeeds");
                *wait = self::wait(fixture);
                Later::No
            }
        },
        answered = answers.join_next() => {
            answered.expect("it was spawned").expect("stats succeeds");
            Later::No
        }
    }
}

/// `hide` comes before a wait begins. `show` makes a message ready while the wait is stopped.
async fn wakes<T>(fixture: &Fixture, hide: impl AsyncFn(&str) -> T, show: impl AsyncFn(T)) {
    for polls in every_await_point() {
        let hidden = hide(&format!("m{polls}")).await;
        let mut waiting = wait(fixture);
        let later = stop(fixture, polls, &mut waiting).await;
        let (ended, ()) = while_stopped(fixture.wait_ends(waiting), show(hidden)).await;
        ended.expect("wait succeeds");
        let shown = fixture.lease_one().await;
        assert!(fixture.ack(&shown.receipt).await.is_applied());
        if later == Later::No {
            break;
        }
    }
}

pub(super) async fn an_enqueue_wakes_a_wait_at_every_point(fixture: Fixture) {
    let id = async |id: &str| id.to_owned();
    wakes(&fixture, id, async |id| fixture.store(&[msg(&id)]).await).await;
    let elsewhere = fixture.reconnect().await;
    let show = async |id: String| {
        let delayed = msg(&id).with_delay(Duration::from_secs(5));
        elsewhere.store(&[delayed]).await;
        fixture.pass(5000).await;
    };
    wakes(&fixture, id, show).await;
}

pub(super) async fn a_change_wakes_a_wait_at_every_point(fixture: Fixture) {
    let lease = async |id: &str| {
        fixture.store(&[msg(id)]).await;
        fixture.lease_for(1, 7_200_000).await.remove(0).receipt
    };
    for action in [nack(0), extend(0)] {
        let show = async |receipt: Receipt| {
            let changed = fixture.change(&receipt, action.clone()).await;
            assert!(changed.is_applied());
        };
        wakes(&fixture, lease, show).await;
    }
}

pub(super) async fn a_redrive_wakes_a_wait_at_every_point(fixture: Fixture) {
    let bury = async |id: &str| fixture.store_dead(&[msg(id)]).await;
    let show = async |()| assert_eq!(fixture.redrive(&Redrive::All).await, 1);
    wakes(&fixture, bury, show).await;
}

/// Waits are dropped at each of their await points, and also after a message has woken them. The one
/// that is left does not depend on them.
pub(super) async fn a_dropped_wait_wakes_others(fixture: Fixture) {
    for polls in every_await_point() {
        let mut waits = [
            wait(&fixture),
            wait(&fixture),
            wait(&fixture),
            wait(&fixture),
        ];
        let mut later = Later::No;
        for wait in &mut waits {
            later = stop(&fixture, polls, wait).await;
        }
        let [before, woken, left, last] = waits;
        drop(before);
        let others = async {
            drop((woken, last));
            fixture.wait_ends(left).await
        };
        let message = [msg(&format!("m{polls}"))];
        let (ended, ()) = while_stopped(others, fixture.store(&message)).await;
        ended.expect("the wait that is left succeeds");
        let delivery = fixture.lease_one().await;
        assert!(fixture.ack(&delivery.receipt).await.is_applied());
        if later == Later::No {
            break;
        }
    }
}
