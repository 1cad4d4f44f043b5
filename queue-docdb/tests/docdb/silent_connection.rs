//! One connection goes silent, and the others work: as when a load balancer or a NAT gateway forgets an
//! idle one.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::{LocalBoxFuture, join_all},
    stream,
};
use mongodb_test_server::{MongoServer, ScratchDatabase};
use queue_api::{
    Error, LeaseChange, LeaseOptions, ManualClock, PageOptions, Purge, Queue, QueueAdmin,
    QueueName, QueueTransaction, Receipt, Redrive,
};
use queue_docdb::DocDbBackend;
use tokio::time::{Instant, timeout};

use crate::{
    fixture::{MINUTE, applied, ids, message, name, queue_of},
    proxy::{Loss, Proxy},
};

tests! {
    on_threads:
        a_silent_connection_costs_a_call_a_part_of_its_timeout,
        a_connection_that_is_silent_from_its_start_does_not_stop_connect
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// A third for the silence, and more than that for all the rest on a busy machine.
const WELL_WITHIN: Duration = Duration::from_secs(23);

/// A backend whose connections go through a proxy.
struct Case {
    proxy: Proxy,
    backend: DocDbBackend,
    queue: Queue,
    /// Of two leased messages. Two more are ready, and one is a dead letter.
    receipts: Vec<Receipt>,
    _database: ScratchDatabase,
}

async fn proxy() -> Proxy {
    let server = MongoServer::shared().await.unwrap();
    let hosts = server.uri().trim_start_matches("mongodb://");
    Proxy::start(hosts.split('/').next().unwrap().to_owned()).await
}

fn uri(proxy: &Proxy) -> String {
    format!("mongodb://{}/?directConnection=true", proxy.address())
}

impl Case {
    async fn new() -> Self {
        let server = MongoServer::shared().await.unwrap();
        let database = server.scratch_database();
        let clock = Arc::new(ManualClock::new());
        let builder = |uri: &str| {
            let builder = DocDbBackend::builder(uri).without_change_stream();
            builder.database(database.name()).clock(clock.clone())
        };
        let healthy = builder(server.uri()).connect().await.unwrap();
        let receipts = prepared(&queue_of(&healthy)).await;
        let proxy = proxy().await;
        let backend = builder(&uri(&proxy)).operation_timeout(TIMEOUT).connect();
        let backend = backend.await.unwrap();
        Self {
            queue: queue_of(&backend),
            proxy,
            backend,
            receipts,
            _database: database,
        }
    }

    async fn change(&self, change: impl FnMut(Receipt) -> LeaseChange) -> Result<String, Error> {
        let changes: Vec<_> = self.receipts.iter().cloned().map(change).collect();
        Ok(format!("{:?}", self.queue.change_batch(&changes).await?))
    }
}

/// The receipts of two leased messages. One message is a dead letter, and two are ready.
async fn prepared(queue: &Queue) -> Vec<Receipt> {
    let batch = ["dead", "leased1", "leased2"].map(message);
    queue.enqueue_batch(&batch).await.unwrap();
    let leased = queue.lease_batch(&LeaseOptions::new(3)).await.unwrap();
    let (dead, leased): (Vec<_>, Vec<_>) = leased
        .into_iter()
        .partition(|delivery| delivery.id.as_str() == "dead");
    applied(queue.dead_letter(&dead[0].receipt, "no")).await;
    let batch = ["ready1", "ready2"].map(message);
    queue.enqueue_batch(&batch).await.unwrap();
    leased
        .into_iter()
        .map(|delivery| delivery.receipt)
        .collect()
}

/// A call, and what it answers.
struct Call {
    name: &'static str,
    make: for<'a> fn(&'a Case) -> LocalBoxFuture<'a, Result<String, Error>>,
    answer: &'static str,
    /// A command that the call may not send again: it could not tell what the first one did.
    once: &'static str,
}

const fn call(
    name: &'static str,
    make: for<'a> fn(&'a Case) -> LocalBoxFuture<'a, Result<String, Error>>,
    answer: &'static str,
) -> Call {
    Call {
        name,
        make,
        answer,
        once: "",
    }
}

impl Call {
    const fn sends_once(mut self, command: &'static str) -> Self {
        self.once = command;
        self
    }
}

const CALLS: &[Call] = &[
    call(
        "prepare",
        |case| {
            async {
                let name = QueueName::new("new")?;
                case.backend.prepare(&name).await?;
                Ok("done".to_owned())
            }
            .boxed_local()
        },
        "done",
    ),
    call(
        "enqueue",
        |case| {
            async { Ok(format!("{:?}", case.queue.enqueue(&message("new")).await?)) }.boxed_local()
        },
        "Stored",
    )
    .sends_once("insert"),
    call(
        "lease",
        |case| {
            async {
                let leased = case.queue.lease_batch(&LeaseOptions::new(2)).await?;
                let mut ids = ids(&leased);
                ids.sort_unstable();
                Ok(format!("{ids:?}"))
            }
            .boxed_local()
        },
        "[\"ready1\", \"ready2\"]",
    ),
    call(
        "lease of one",
        |case| {
            async {
                let leased = case.queue.lease_batch(&LeaseOptions::new(1)).await?;
                Ok(leased.len().to_string())
            }
            .boxed_local()
        },
        "1",
    ),
    call(
        "ack of one",
        |case| {
            async { Ok(format!("{:?}", case.queue.ack(&case.receipts[0]).await?)) }.boxed_local()
        },
        "Applied",
    ),
    call(
        "ack of several",
        |case| {
            async { Ok(format!("{:?}", case.queue.ack_batch(&case.receipts).await?)) }.boxed_local()
        },
        "[Applied, Applied]",
    ),
    call(
        "extend",
        |case| {
            case.change(|it| LeaseChange::extend(it, MINUTE))
                .boxed_local()
        },
        "[Applied, Applied]",
    ),
    call(
        "nack",
        |case| {
            case.change(|it| LeaseChange::nack(it, MINUTE))
                .boxed_local()
        },
        "[Applied, Applied]",
    ),
    call(
        "release",
        |case| case.change(LeaseChange::release).boxed_local(),
        "[Applied, Applied]",
    ),
    call(
        "dead-letter",
        |case| {
            case.change(|it| LeaseChange::dead_letter(it, "no"))
                .boxed_local()
        },
        "[Applied, Applied]",
    ),
    call(
        "wait",
        |case| {
            async {
                case.queue.wait(60 * MINUTE).await?;
                Ok("ready".to_owned())
            }
            .boxed_local()
        },
        "ready",
    ),
    call(
        "stats",
        |case| {
            async {
                let stats = case.queue.stats().await?;
                Ok(format!("{} {} {}", stats.ready, stats.leased, stats.dead))
            }
            .boxed_local()
        },
        "2 2 1",
    ),
    call(
        "peek",
        |case| async { Ok(case.backend.peek(&name(), 9).await?.len().to_string()) }.boxed_local(),
        "4",
    ),
    call(
        "dead letters",
        |case| {
            async {
                let page = PageOptions::new(9);
                Ok(case
                    .backend
                    .dead_letters(&name(), &page)
                    .await?
                    .len()
                    .to_string())
            }
            .boxed_local()
        },
        "1",
    ),
    call(
        "purge",
        |case| {
            async { Ok(case.backend.purge(&name(), Purge::Live).await?.to_string()) }.boxed_local()
        },
        "4",
    )
    .sends_once("delete"),
    call(
        "redrive",
        |case| {
            async {
                Ok(case
                    .backend
                    .redrive(&name(), &Redrive::All)
                    .await?
                    .to_string())
            }
            .boxed_local()
        },
        "1",
    )
    .sends_once("update"),
    call(
        "delete queue",
        |case| {
            async {
                case.backend.delete_queue(&name()).await?;
                Ok("done".to_owned())
            }
            .boxed_local()
        },
        "done",
    ),
    call(
        "list queues",
        |case| async { Ok(case.backend.list_queues().await?.len().to_string()) }.boxed_local(),
        "1",
    ),
    call(
        "transaction",
        |case| {
            async {
                let mut session = case.backend.start_session().await?;
                session.start_transaction().await.unwrap();
                let mut queues = case.backend.in_transaction(&mut session);
                let answer = async {
                    let acked = queues.ack(&name(), &case.receipts).await?;
                    let stored = queues.enqueue(&name(), &[message("next")]).await?;
                    Ok(format!("{acked:?} {stored:?}"))
                };
                let answer = answer.await;
                // It would hold the messages for a minute.
                let _ = timeout(TIMEOUT, session.abort_transaction()).await;
                answer
            }
            .boxed_local()
        },
        "[Applied, Applied] [Stored]",
    ),
];

/// Makes the call while its command after `skip` others meets a silent connection. Returns what was
/// wrong; `None` if the call sends no such command.
async fn silenced(call: &Call, skip: usize, loss: Loss) -> Option<Result<(), String>> {
    let case = Case::new().await;
    case.proxy.set_after(skip, loss);
    let began = Instant::now();
    let answer = (call.make)(&case).await;
    let took = began.elapsed();
    let command = case.proxy.sprung()?;
    let said = format!(
        "{}, {command} {skip}, {loss:?}: {answer:?} in {took:.1?}",
        call.name
    );
    // It cannot tell what the first command did.
    let is_unknown = loss == Loss::Withhold && command == "delete" || call.name == "transaction";
    let is_right = match &answer {
        Ok(answer) => answer == call.answer,
        Err(error) => error.is_retryable() && (is_unknown || command == call.once),
    };
    let is_in_time = took < WELL_WITHIN || command == call.once;
    Some(if is_right && is_in_time {
        Ok(())
    } else {
        Err(said)
    })
}

async fn a_silent_connection_costs_a_call_a_part_of_its_timeout() {
    let each = CALLS.iter().flat_map(|call| {
        [Loss::NeverArrive, Loss::Withhold].map(|loss| async move {
            let mut wrong = Vec::new();
            // Several at a time, because each waits.
            for first in (0..).step_by(4) {
                let several = (first..first + 4).map(|skip| silenced(call, skip, loss));
                let several = join_all(several).await;
                assert!(
                    first > 0 || several[0].is_some(),
                    "{} sends nothing",
                    call.name
                );
                let is_end = several.iter().any(Option::is_none);
                wrong.extend(several.into_iter().flatten().filter_map(Result::err));
                if is_end {
                    break;
                }
            }
            wrong
        })
    });
    let wrong: Vec<Vec<String>> = stream::iter(each).buffer_unordered(6).collect().await;
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Connections of the driver's monitor and of the pool.
async fn a_connection_that_is_silent_from_its_start_does_not_stop_connect() {
    let server = MongoServer::shared().await.unwrap();
    let cases = [1, 10]
        .into_iter()
        .flat_map(|pool| (0..4).map(move |skip| (pool, skip)));
    let each = cases.map(async |(pool, skip)| {
        let (proxy, database) = (proxy().await, server.scratch_database());
        proxy.mute_after(skip);
        let began = Instant::now();
        let connected = DocDbBackend::builder(uri(&proxy))
            .database(database.name())
            .max_pool_size(pool)
            .operation_timeout(TIMEOUT)
            .without_change_stream()
            .connect()
            .await;
        let connected_in = began.elapsed();
        let answer = match &connected {
            Ok(backend) => queue_of(backend).stats().await.map(|stats| stats.ready),
            Err(error) => Err(error.clone()),
        };
        let took = began.elapsed();
        let is_wrong = answer.is_err() || took > WELL_WITHIN;
        is_wrong.then(|| {
            format!(
                "pool of {pool}, connection {skip}: {answer:?} in {connected_in:.1?}, {took:.1?}"
            )
        })
    });
    let wrong: Vec<String> = join_all(each).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
