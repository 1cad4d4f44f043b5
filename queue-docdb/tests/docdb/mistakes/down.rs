//! Outages that look like mistakes.

use queue_api::Error;

use super::*;
use crate::forwarder::Forwarder;

tests! {
    on_threads:
        members_that_stop_while_there_is_no_primary_are_an_outage,
        a_secondary_whose_primary_has_just_died_is_an_outage
}

fn builder(uri: impl Into<String>, seconds: u64) -> DocDbBuilder {
    super::builder(uri).operation_timeout(Duration::from_secs(seconds))
}

/// `host:port` of the only host in a URI.
fn host(uri: &str) -> String {
    let rest = uri.trim_start_matches("mongodb://");
    rest.split('/').next().unwrap().to_owned()
}

fn assert_outage(error: &Error) {
    let kind = error.kind();
    let is_outage = matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut);
    assert!(is_outage, "{kind:?}: {error}");
}

/// The URI has other names of the members than their set.
#[allow(clippy::disallowed_methods)] // members stop in real time
async fn members_that_stop_while_there_is_no_primary_are_an_outage() {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new())
        .await
        .unwrap();
    let primary = set.settled().await.unwrap();
    let mut aliases = Vec::new();
    for member in set.members() {
        let uri = set.member_uri(member);
        aliases.push(Forwarder::start(host(&uri)).await);
        if member != primary {
            let client = mongodb::Client::with_uri_str(&uri).await.unwrap();
            let freeze = doc! { "replSetFreeze": 120 };
            client.database("admin").run_command(freeze).await.unwrap();
        }
    }
    let client = mongodb::Client::with_uri_str(set.member_uri(primary))
        .await
        .unwrap();
    let stand_down = doc! { "replSetStepDown": 120, "force": true };
    client
        .database("admin")
        .run_command(stand_down)
        .await
        .unwrap();
    let hosts: Vec<&str> = aliases.iter().map(Forwarder::address).collect();
    let connecting = tokio::spawn(builder(format!("mongodb://{}/", hosts.join(",")), 20).connect());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let [a, b, c] = set.members();
    drop(aliases);
    let _ = tokio::join!(set.kill(a), set.kill(b), set.kill(c));
    let error = connecting.await.unwrap().unwrap_err();
    assert_outage(&error);
    set.shut_down().await.unwrap();
}

/// Until it misses a heartbeat, a secondary names a primary that is gone.
async fn a_secondary_whose_primary_has_just_died_is_an_outage() {
    let options = ReplicaSetOptions::new().with_election_timeout(Duration::from_secs(10));
    let set = MongoReplicaSet::start(options).await.unwrap();
    let primary = set.settled().await.unwrap();
    set.kill(primary).await.unwrap();
    let others: Vec<_> = set
        .members()
        .into_iter()
        .filter(|each| *each != primary)
        .collect();
    let (one, two) = tokio::join!(
        builder(set.member_uri(others[0]), 25).connect(),
        builder(set.member_uri(others[1]), 25).connect(),
    );
    assert!(one.is_ok() || two.is_ok());
    set.shut_down().await.unwrap();
}
