//! W1 and C1: a wait that is stopped at each of its await points while its reason to end comes.

use std::{future::Future, pin::Pin, time::Duration};

use queue_api::{LeaseAction, Receipt, Redrive, Result};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    fixture::{Fixture, extend, msg, nack},
    race::{STOPPED, Stops, while_stopped},
};

/// Longer than any check may take, so a wait does not return just because its time is up.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

type Wait<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

fn wait(fixture: &Fixture) -> Wait<'_> {
    Box::pin(fixture.backend().wait(&fixture.name, FOR_EVER))
}

/// Polls a wait until it is at the next point, or until the store has answered other calls for so long
/// that nothing wakes it.
async fn stop<'a>(fixture: &'a Fixture, stops: &mut Stops<'_>, wait: &mut Wait<'a>) {
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
        ended = stops.poll(Pin::new(wait)) => {
            if let Some(ended) = ended {
                // It may return early for no reason. Then it is as if it had not begun.
                ended.expect("wait succeeds");
                *wait = self::wait(fixture);
            }
        }
        answered = answers.join_next() => {
            answered.expect("it was spawned").expect("stats succeeds");
            stops.was_not_stopped();
        }
    }
}

/// `hide` comes before a wait begins. `show` makes a message ready while the wait is stopped.
async fn wakes<T>(fixture: &Fixture, hide: impl AsyncFn(&str) -> T, show: impl AsyncFn(T)) {
    let mut stops = Stops::new(fixture);
    while let Some(call) = stops.next_call() {
        let hidden = hide(&format!("m{call}")).await;
        let mut waiting = wait(fixture);
        stop(fixture, &mut stops, &mut waiting).await;
        let (ended, ()) = while_stopped(fixture.wait_ends(waiting), show(hidden)).await;
        ended.expect("wait succeeds");
        let shown = fixture.lease_one().await;
        assert!(fixture.ack(&shown.receipt).await.is_applied());
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
    for action in [nack(0), extend(0), LeaseAction::Release] {
        let show = async |receipt: Receipt| {
            let changed = fixture.change(&receipt, action.clone()).await;
            assert!(changed.is_applied());
        };
        wakes(&fixture, lease, show).await;
    }
}

pub(super) async fn a_redrive_wakes_a_wait_at_every_point(fixture: Fixture) {
    let store_dead = async |id: &str| fixture.store_dead(&[msg(id)]).await;
    let show = async |()| assert_eq!(fixture.redrive(&Redrive::All).await, 1);
    wakes(&fixture, store_dead, show).await;
}

/// Waits are dropped at each of their await points, and also after a message has woken them. The one
/// that is left does not depend on them.
pub(super) async fn a_dropped_wait_wakes_others(fixture: Fixture) {
    let mut stops = [(); 4].map(|()| Stops::new(&fixture));
    for call in 1.. {
        if stops.each_mut().map(|it| it.next_call().is_none()) == [true; 4] {
            break;
        }
        let mut waits = [(); 4].map(|()| wait(&fixture));
        for (wait, stops) in waits.iter_mut().zip(&mut stops) {
            stop(&fixture, stops, wait).await;
        }
        let [before, woken, left, last] = waits;
        drop(before);
        let others = async {
            drop((woken, last));
            fixture.wait_ends(left).await
        };
        let message = [msg(&format!("m{call}"))];
        let (ended, ()) = while_stopped(others, fixture.store(&message)).await;
        ended.expect("the wait that is left succeeds");
        let delivery = fixture.lease_one().await;
        assert!(fixture.ack(&delivery.receipt).await.is_applied());
    }
}
