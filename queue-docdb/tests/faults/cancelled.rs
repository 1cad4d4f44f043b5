//! A thousand tasks of one process are cancelled at once, in the middle of their calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use queue_api::{LeaseOutcome, Result};
use queue_conformance::record::{ReceiptAction, judge};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use crate::{
    calls::Call,
    drain::drain,
    log::{DELAY, Leased, Party, World},
    proxy::{Proxy, pause},
    record::record,
    schedule::TIMEOUT,
    server::{ClientKind, Server},
    truth::lost,
};

const TASKS: usize = 1000;

/// How many of them have ended when the others are cancelled.
const ENDED: usize = 200;

/// The messages that the tasks settle. As many are ready.
const LEASED: usize = TASKS / 2;

/// How often the process tries to work after its tasks were cancelled. A late request of theirs may be in its
/// way.
const TRIES: usize = 4;

/// Returns what was wrong.
pub(crate) async fn cancel_all() -> Result<Vec<String>> {
    let server = Server::shared().await;
    let database = server.database(false);
    let world = Arc::new(World::new(&database));
    let other = server.undisturbed("other", &database, &world).await?;
    let proxy = Proxy::start(server.primary(), None).await;
    let subject = server
        .behind(&proxy, ClientKind::Own, &database, &world)
        .await?;
    let copies = |from: usize| (from..from + 100).map(|n| world.copy(&format!("m{n}"), 1000));
    for from in (0..2 * LEASED).step_by(100) {
        other.enqueue(copies(from).collect()).await?;
    }
    let mut leased = Vec::new();
    while leased.len() < LEASED {
        leased.extend(other.lease(100).await?);
    }
    leased.truncate(LEASED);

    let (ended, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let (party, ended, enough) = (subject.clone(), ended.clone(), enough.clone());
        let its = leased.get(number / 2).cloned();
        tasks.spawn(async move {
            let _ = make(&party, number, its).await;
            if ended.fetch_add(1, Ordering::Relaxed) + 1 == ENDED {
                enough.notify_one();
            }
        });
    }
    enough.notified().await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}

    let mut wrong = Vec::new();
    let cancelled = TASKS - ended.load(Ordering::Relaxed);
    if cancelled == 0 {
        wrong.push("no call was cancelled".to_owned());
    }
    wrong.extend(cannot_work(&subject).await);
    let last = drain(Call::Lease, &other, &mut wrong).await?;
    let events = world.events();
    wrong.extend(lost(&events, &last));
    wrong.extend(judge(&record(&events)).iter().map(ToString::to_string));
    server.drop_database(&database).await;
    Ok(wrong)
}

/// Why the process cannot enqueue, lease and ack any more.
async fn cannot_work(party: &Party) -> Option<String> {
    let mut why = None;
    for _ in 0..TRIES {
        let work = async {
            party.enqueue(party.world.copies(&["again"])).await?;
            let leased = party.lease(1).await?;
            party.ack(leased).await
        };
        // Each of the calls may take its operation timeout.
        match timeout(TIMEOUT * 4, work).await {
            Ok(Ok(outcomes)) if outcomes == [LeaseOutcome::Applied] => return None,
            other => why = Some(format!("the process cannot work any more: {other:?}")),
        }
        pause(Duration::from_millis(200)).await;
    }
    why
}

/// One of the calls in turn. Even numbers settle.
async fn make(party: &Party, number: usize, leased: Option<Leased>) -> Result<()> {
    match (number % 2, leased) {
        (0, Some(leased)) => {
            let actions = [
                ReceiptAction::Ack,
                ReceiptAction::Nack(0),
                ReceiptAction::Extend(DELAY),
                ReceiptAction::Ack,
                ReceiptAction::Release,
            ];
            let action = actions[number / 2 % actions.len()];
            drop(party.settle(vec![(leased, action)]).await?);
        }
        _ if number % 4 == 1 => drop(party.lease(2).await?),
        _ => {
            let copy = party.world.copy(&format!("new{number}"), 1000);
            drop(party.enqueue(vec![copy]).await?);
        }
    }
    Ok(())
}
