//! One connection is silent from its start, and the others work.

use std::time::Duration;

use futures::future::join_all;
use mongodb_test_server::MongoServer;
use queue_docdb::DocDbBackend;
use tokio::time::Instant;

use crate::{fixture::queue_of, forwarder::Forwarder};

tests! {
    on_threads:
        a_connection_that_is_silent_from_its_start_does_not_stop_connect
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// A third for the silence, and more than that for all the rest on a busy machine.
const WELL_WITHIN: Duration = Duration::from_secs(23);

fn address(server: &MongoServer) -> String {
    let hosts = server.uri().trim_start_matches("mongodb://");
    hosts.split('/').next().unwrap().to_owned()
}

fn uri(forwarder: &Forwarder) -> String {
    format!("mongodb://{}/?directConnection=true", forwarder.address())
}

/// Connections of the driver's monitor and of the pool.
async fn a_connection_that_is_silent_from_its_start_does_not_stop_connect() {
    let server = MongoServer::shared().await.unwrap();
    let cases = [1, 10]
        .into_iter()
        .flat_map(|pool| (0..4).map(move |skip| (pool, skip)));
    let each = cases.map(async |(pool, skip)| {
        let (forwarder, database) = (
            Forwarder::start(address(server)).await,
            server.scratch_database(),
        );
        forwarder.mute_after(skip);
        let began = Instant::now();
        let connected = DocDbBackend::builder(uri(&forwarder))
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
