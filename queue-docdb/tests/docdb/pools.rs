//! Several backends with waiting workers on small pools.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use mongodb::{Client, options::ClientOptions};
use mongodb_test_server::{MongoServer, ScratchDatabase};
use queue_api::{
    Queue,
    consumer::{Context, Worker},
};
use queue_docdb::DocDbBackend;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

tests! {
    on_threads:
        backends_on_one_client_share_its_pool,
        a_stream_leaves_enough_of_a_pool
}

/// A worker waits within this time, and has its change stream open.
const SETTLED: Duration = Duration::from_secs(2);

/// Longer than a pause between two polls, and much shorter than the `getMore` of an idle stream.
const SOON: Duration = Duration::from_secs(8);

const ROUNDS: usize = 2;

/// What tenants of one client have for themselves.
#[derive(Clone, Copy, Debug)]
enum Tenants {
    Databases,
    Prefixes,
}

/// A client as an application makes it.
async fn client(pool: Option<u32>) -> Client {
    let server = MongoServer::shared().await.unwrap();
    let mut options = ClientOptions::parse(server.uri()).await.unwrap();
    options.max_pool_size = pool;
    Client::with_options(options).unwrap()
}

async fn backends_on(
    client: &Client,
    tenants: Tenants,
    count: usize,
) -> (Vec<DocDbBackend>, Vec<ScratchDatabase>) {
    let server = MongoServer::shared().await.unwrap();
    let databases: Vec<_> = (0..count).map(|_| server.scratch_database()).collect();
    let backends = databases.iter().enumerate().map(|(number, own)| {
        let builder = match tenants {
            Tenants::Databases => DocDbBackend::from_database(client.database(own.name())),
            Tenants::Prefixes => DocDbBackend::from_database(client.database(databases[0].name()))
                .collection_prefix(format!("t{number}.")),
        };
        builder.connect()
    });
    let backends = join_all(backends).await.into_iter().map(Result::unwrap);
    (backends.collect(), databases)
}

/// Each queue has an idle worker. Then a message comes in, and is handled soon.
#[allow(clippy::disallowed_methods)] // real workers come to rest in real time
async fn all_are_handled(queues: Vec<Queue>) -> Result<(), String> {
    let (handled, mut done) = mpsc::unbounded_channel();
    let mut workers = JoinSet::new();
    for queue in &queues {
        let (queue, handled) = (queue.clone(), handled.clone());
        workers.spawn(async move {
            let handler = move |_: String, _: Context| {
                std::future::ready(handled.send(()).map_err(|_| "the test has ended"))
            };
            let worker = Worker::new(queue, handler);
            worker.run(std::future::pending::<()>()).await
        });
    }
    for round in 0..ROUNDS {
        tokio::time::sleep(SETTLED).await;
        let enqueued = queues.iter().map(|queue| async move {
            let message = String::from("a message");
            queue.typed().enqueue(&message).await
        });
        let all = async {
            for enqueued in join_all(enqueued).await {
                enqueued.map_err(|error| error.to_string())?;
            }
            for _ in &queues {
                done.recv().await;
            }
            Ok(())
        };
        let in_time = timeout(SOON, all).await;
        in_time.unwrap_or_else(|_| Err(format!("round {round}: not handled in {SOON:?}")))?;
    }
    Ok(())
}

async fn backends_on_one_client_share_its_pool() {
    let mut failed = Vec::new();
    for tenants in [Tenants::Databases, Tenants::Prefixes] {
        for (pool, count) in [(Some(1), 1), (Some(1), 3), (Some(2), 2), (None, 12)] {
            let client = client(pool).await;
            let (backends, _databases) = backends_on(&client, tenants, count).await;
            let queues = backends.into_iter().map(|backend| mail(&backend, "mail"));
            if let Err(error) = all_are_handled(queues.collect()).await {
                failed.push(format!(
                    "{count} {tenants:?} on a pool of {pool:?}: {error}"
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A pool of two has one connection left beside the stream. It serves many waits and calls.
async fn a_stream_leaves_enough_of_a_pool() {
    for (pool, backends, queues) in [(1, 2, 4), (2, 1, 12), (2, 3, 4)] {
        let server = MongoServer::shared().await.unwrap();
        let database = server.scratch_database();
        let connecting = (0..backends).map(|number| {
            DocDbBackend::builder(server.uri())
                .database(database.name())
                .collection_prefix(format!("t{number}."))
                .max_pool_size(pool)
                .connect()
        });
        let mut all = Vec::new();
        for backend in join_all(connecting).await {
            let backend = backend.unwrap();
            all.extend((0..queues).map(|number| mail(&backend, &format!("mail{number}"))));
        }
        let handled = all_are_handled(all).await;
        assert_eq!(
            handled,
            Ok(()),
            "{backends} × {queues} queues on pools of {pool}"
        );
    }
}

fn mail(backend: &DocDbBackend, name: &str) -> Queue {
    Queue::new(Arc::new(backend.clone()), name).unwrap()
}
