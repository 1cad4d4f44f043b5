//! A failover undoes writes that no majority has. What the calls have returned must still be true.

mod calls;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Client,
    bson::{Bson, Document, doc},
};
use mongodb_test_server::{Member, MongoReplicaSet, ReplicaSetOptions};
use queue_api::Error;
use tokio::task::{self, JoinHandle, LocalSet};

use self::calls::{CALLS, Case};

tests! {
    on_threads:
        what_a_call_returned_survives_a_failover
}

async fn direct(set: &MongoReplicaSet, member: Member) -> Client {
    Client::with_uri_str(set.member_uri(member)).await.unwrap()
}

const REPLICATION: &str = "stopReplProducer";

/// How often a secondary that copies nothing meets the fail point, about once a second. The first
/// time may be after a batch that it still copies.
const STOPPED: i64 = 3;

/// Returns when the secondary copies nothing any more of what the primary writes.
async fn stop_replication(secondary: &Client) {
    let admin = secondary.database("admin");
    let on = doc! { "configureFailPoint": REPLICATION, "mode": "alwaysOn" };
    let before = admin.run_command(on).await.unwrap();
    let before = before.get("count").map_or(0, |count| match count {
        Bson::Int32(count) => i64::from(*count),
        count => count.as_i64().expect("a number"),
    });
    let wait = doc! {
        "waitForFailPoint": REPLICATION, "timesEntered": before + STOPPED, "maxTimeMS": 60_000,
    };
    admin.run_command(wait).await.unwrap();
}

async fn start_replication(secondary: &Client) {
    let off = doc! { "configureFailPoint": REPLICATION, "mode": "off" };
    secondary.database("admin").run_command(off).await.unwrap();
}

/// All documents of a case's queue, as this member has them.
async fn documents(case: &Case, member: &Client) -> BTreeMap<String, Document> {
    let all = member
        .database(&case.database)
        .collection::<Document>("queue.mail");
    let found: Vec<Document> = all
        .find(doc! {})
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let keyed = found.into_iter().map(|each| {
        let id = each.get("_id").map(Bson::to_string);
        (id.unwrap(), each)
    });
    keyed.collect()
}

type Answer = Result<u64, Error>;

/// Waits until a command of the call has run for 50 looks, which is a second, or the call has ended.
/// Nothing but the missing majority stops a command.
async fn await_blocked(case: &Case, call: &JoinHandle<Answer>, primary: &Client) {
    let running = doc! {
        "appName": &case.database,
        "active": true,
        // The driver's monitor waits too.
        "command.hello": { "$exists": false },
        "command.isMaster": { "$exists": false },
        "command.ismaster": { "$exists": false },
    };
    let stages = [
        doc! { "$currentOp": { "allUsers": true } },
        doc! { "$match": running },
    ];
    let admin = primary.database("admin");
    let (mut last, mut looks) = (None, 0);
    while !call.is_finished() && looks < 50 {
        let mut found = admin.aggregate(stages.clone()).await.unwrap();
        let is_there = found.advance().await.unwrap();
        let now = is_there.then(|| found.deserialize_current().unwrap().get("opid").cloned());
        looks = if now == last && is_there {
            looks + 1
        } else {
            0
        };
        last = now;
        pause().await;
    }
}

/// Leaves the server time for the calls.
#[allow(clippy::disallowed_methods)]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// A call under way on the old primary, whose effect no other member has.
struct Pending {
    case: Arc<Case>,
    before: BTreeMap<String, Document>,
    call: JoinHandle<Answer>,
}

/// Makes the call, after a dropped call of the same kind if the case has one. Returns when it waits
/// for a majority, or has ended.
async fn begin(case: Arc<Case>, primary: Client) -> Pending {
    let before = documents(&case, &primary).await;
    let start = |case: Arc<Case>| {
        task::spawn_local(async move {
            let answer = case.make().await;
            // So that no call waits for an answer after the call has ended.
            case.answered.notify_one();
            answer
        })
    };
    let mut call = start(case.clone());
    while documents(&case, &primary).await == before {
        assert!(!call.is_finished(), "{case:?} did nothing");
        pause().await;
    }
    await_blocked(&case, &call, &primary).await;
    if case.is_repeated {
        call.abort();
        call = start(case.clone());
        await_blocked(&case, &call, &primary).await;
    }
    Pending { case, before, call }
}

async fn what_a_call_returned_survives_a_failover() {
    LocalSet::new().run_until(fail_over()).await;
}

/// The primary carries writes out that no other member gets. It steps down, which answers the
/// calls, and ends. Then the others elect a primary without these writes.
async fn fail_over() {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new())
        .await
        .unwrap();
    let uri = set.uri();
    let prepared = CALLS
        .into_iter()
        .flat_map(|call| [(call, false), (call, true)]);
    let prepared = stream::iter(prepared)
        .map(|(call, is_repeated)| Case::prepare(&uri, call, is_repeated))
        .buffered(8);
    let cases: Vec<Arc<Case>> = prepared.map(Arc::new).collect().await;
    let primary = set.settled().await.unwrap();
    let old = direct(&set, primary).await;
    let mut secondaries = Vec::new();
    for member in set.members().into_iter().filter(|it| *it != primary) {
        let secondary = direct(&set, member).await;
        for case in &cases {
            while documents(case, &secondary).await != documents(case, &old).await {}
        }
        stop_replication(&secondary).await;
        secondaries.push(secondary);
    }

    let begun = cases.into_iter().map(|case| begin(case, old.clone()));
    let pending: Vec<Pending> = futures::future::join_all(begun).await;
    // Before the step-down: after it, a call may be made again on another member.
    for secondary in &secondaries {
        for Pending { case, before, .. } in &pending {
            let there = documents(case, secondary).await;
            assert!(there == *before, "{case:?} is on another member");
        }
    }
    for each in &pending {
        each.case.forget_answers().await;
    }
    let step_down = doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 0, "force": true };
    old.database("admin").run_command(step_down).await.unwrap();
    for each in pending.iter().filter(|it| !it.call.is_finished()) {
        each.case.answered.notified().await;
    }
    set.kill(primary).await.unwrap();
    for secondary in &secondaries {
        start_replication(secondary).await;
    }

    set.primary().await.unwrap();
    for Pending { case, call, .. } in pending {
        let first = call.await.unwrap();
        let repeated = match &first {
            Ok(_) => None,
            Err(error) => {
                assert!(error.is_retryable(), "{case:?}: {error:?}");
                Some(case.make().await)
            }
        };
        println!("{case:?}: {first:?}, {repeated:?}");
        let told = match repeated {
            Some(again) => again.unwrap_or_else(|error| panic!("{case:?}: {error:?}")),
            None => first.unwrap(),
        };
        case.check(told).await;
    }
    set.shut_down().await.unwrap();
}
