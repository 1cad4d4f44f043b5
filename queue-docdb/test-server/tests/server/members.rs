//! A replica set whose members fail in every way, and come back.

use std::env;
use std::process::Command;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, WriteConcern};
use mongodb::{Client, Collection};
use mongodb_test_server::{
    CutFrom, FaultError, Member, MongoReplicaSet, ReplicaSetOptions, Source,
};
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::core::client::docker_client_instance;

use crate::held::{Held, Traces, program, without_docker};

struct Set {
    set: MongoReplicaSet,
    notes: Collection<Document>,
    written: u64,
}

impl Set {
    async fn start() -> Self {
        let options = ReplicaSetOptions::new().with_election_timeout(Duration::from_secs(1));
        let set = MongoReplicaSet::start(options).await.unwrap();
        let mut options = ClientOptions::parse(set.uri()).await.unwrap();
        options.write_concern = Some(WriteConcern::majority());
        let client = Client::with_options(options).unwrap();
        Self {
            set,
            notes: client.database("test").collection("notes"),
            written: 0,
        }
    }

    /// Writes a note, which a majority has, and counts those that are there. Both are repeated:
    /// a client that still looks for the new primary is told so by an error.
    async fn works(&mut self) {
        let id = i64::try_from(self.written).unwrap();
        let is_there = |error: &mongodb::error::Error| error.to_string().contains("E11000");
        let written = async {
            while let Err(error) = self.notes.insert_one(doc! { "_id": id }).await {
                if is_there(&error) {
                    break;
                }
            }
            loop {
                if let Ok(count) = self.notes.count_documents(doc! {}).await {
                    return count;
                }
            }
        };
        let patience = Duration::from_secs(60);
        let count = tokio::time::timeout(patience, written).await.unwrap();
        self.written += 1;
        assert_eq!(count, self.written, "what a majority has is kept");
    }

    /// Waits until another member is the primary.
    async fn primary_other_than(&self, old: Member) -> Member {
        loop {
            let primary = self.set.primary().await.unwrap();
            if primary != old {
                return primary;
            }
        }
    }

    async fn answers(&self, member: Member) -> bool {
        let uri = self.set.member_uri(member);
        let mut options = ClientOptions::parse(uri).await.unwrap();
        options.server_selection_timeout = Some(Duration::from_secs(2));
        let database = Client::with_options(options).unwrap().database("admin");
        let ping = async move { database.run_command(doc! { "ping": 1 }).await };
        let answer = tokio::time::timeout(Duration::from_secs(3), ping).await;
        answer.is_ok_and(|answer| answer.is_ok())
    }
}

#[tokio::test]
async fn fail_and_come_back() {
    let mut set = Set::start().await;
    set.works().await;

    let primary = set.set.settled().await.unwrap();
    set.set.kill(primary).await.unwrap();
    assert!(!set.answers(primary).await);
    set.primary_other_than(primary).await;
    set.works().await;
    set.set.start_again(primary).await.unwrap();

    let primary = set.set.settled().await.unwrap();
    set.set.stop(primary).await.unwrap();
    assert!(!set.answers(primary).await);
    set.primary_other_than(primary).await;
    set.set.start_again(primary).await.unwrap();

    let primary = set.set.settled().await.unwrap();
    set.set.freeze(primary).await.unwrap();
    assert!(!set.answers(primary).await);
    set.primary_other_than(primary).await;
    set.set.thaw(primary).await.unwrap();
    set.set.settled().await.unwrap();
    set.works().await;

    for member in set.set.members() {
        set.set.kill(member).await.unwrap();
    }
    for member in set.set.members() {
        assert!(!set.answers(member).await);
        set.set.start_again(member).await.unwrap();
    }
    set.set.settled().await.unwrap();
    set.works().await;

    cut_off(&mut set).await;
    let frozen = set.set.settled().await.unwrap();
    let traces = SetTraces::of(&set.set.uri(), &set.set.source().to_string()).await;
    set.set.freeze(frozen).await.unwrap();
    set.set.take_down().await.unwrap();
    assert!(!traces.any_left().await, "{traces:?}");
}

async fn cut_off(set: &mut Set) {
    let primary = set.set.settled().await.unwrap();
    if !matches!(set.set.source(), Source::Container { .. }) {
        let refused = set.set.cut(primary, CutFrom::Everybody).await;
        assert!(matches!(refused, Err(FaultError::NeedsContainers)));
        return;
    }
    set.set.cut(primary, CutFrom::Everybody).await.unwrap();
    assert!(!set.answers(primary).await);
    set.primary_other_than(primary).await;
    set.set.heal(primary).await.unwrap();
    set.set.settled().await.unwrap();
    set.works().await;

    let primary = set.set.settled().await.unwrap();
    set.set.cut(primary, CutFrom::Members).await.unwrap();
    set.primary_other_than(primary).await;
    assert!(set.answers(primary).await, "clients still reach it");
    set.set.heal(primary).await.unwrap();
    assert!(set.answers(set.set.settled().await.unwrap()).await);
    set.works().await;
}

#[test]
fn fail_and_come_back_without_docker() {
    let mut this = Command::new(env::current_exe().unwrap());
    this.args(["--exact", "members::fail_and_come_back"]);
    let output = without_docker(&mut this).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test]
async fn are_gone_when_their_process_is_killed() {
    gone_after_a_kill(program().arg("replica-set")).await;
}

#[tokio::test]
async fn are_gone_when_their_process_is_killed_without_docker() {
    gone_after_a_kill(without_docker(program().arg("replica-set"))).await;
}

async fn gone_after_a_kill(command: &mut Command) {
    let mut held = Held::start(command);
    let traces = SetTraces::of(&held.uri, &held.source).await;
    held.process.kill().unwrap();
    held.process.wait().unwrap();
    traces.vanish().await;
}

#[test]
#[should_panic(expected = "cannot tell a loss from a pause")]
fn elect_within_a_time_in_which_they_can_ask_each_other() {
    let _ = ReplicaSetOptions::new().with_election_timeout(Duration::from_millis(50));
}

/// What there is of a replica set while it runs, and must not be there after.
#[derive(Debug)]
struct SetTraces {
    members: Vec<Traces>,
    networks: Vec<String>,
}

impl SetTraces {
    async fn of(uri: &str, source: &str) -> Self {
        let addresses = uri.strip_prefix("mongodb://").unwrap().split('/').next();
        let mut traces = Self {
            members: Vec::new(),
            networks: Vec::new(),
        };
        let container = source
            .strip_prefix("container ")
            .and_then(|it| it.split(' ').next());
        if let Some(name) = container {
            traces.networks = networks_of(name).await;
            assert_eq!(traces.networks.len(), 3, "each member has one");
        }
        for address in addresses.unwrap().split(',') {
            let uri = format!("mongodb://{address}/?directConnection=true");
            let source = match container {
                None => source.to_owned(),
                Some(_) => format!("container {} of an image", at(address, &traces).await),
            };
            traces.members.push(Traces::of(&uri, &source).await);
        }
        traces
    }

    async fn vanish(&self) {
        for member in &self.members {
            member.vanish().await;
        }
        while self.any_left().await {
            tokio::task::yield_now().await;
        }
    }

    async fn any_left(&self) -> bool {
        for member in &self.members {
            if member.any_left().await {
                return true;
            }
        }
        for network in &self.networks {
            match docker().await.inspect_network(network, None).await {
                Ok(_) => return true,
                Err(DockerError::DockerResponseServerError {
                    status_code: 404, ..
                }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        false
    }
}

async fn docker() -> Docker {
    docker_client_instance().await.expect("there is a daemon")
}

async fn networks_of(container: &str) -> Vec<String> {
    let seen = docker().await.inspect_container(container, None).await;
    let networks = seen.unwrap().network_settings.unwrap().networks.unwrap();
    networks.into_keys().collect()
}

/// The container that has this address in its own network.
async fn at(address: &str, traces: &SetTraces) -> String {
    let ip = address.split(':').next().unwrap();
    for network in &traces.networks {
        let seen = docker().await.inspect_network(network, None).await.unwrap();
        for container in seen.containers.unwrap().into_values() {
            let own = container.ipv4_address.unwrap_or_default();
            if own.split('/').next() == Some(ip) {
                return container.name.unwrap();
            }
        }
    }
    panic!("no container has {address}");
}
