//! Members that are processes fail in every way and come back. Members that are containers do so in
//! the failover tests of `queue-docdb`.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, WriteConcern};
use mongodb::{Client, Collection};

use super::{Member, MongoReplicaSet, Servers, processes};
use crate::{CutFrom, MemberError, ReplicaSetOptions, dedicated_runtime};

struct Set {
    set: MongoReplicaSet,
    notes: Collection<Document>,
    written: u64,
}

impl Set {
    async fn start() -> Self {
        let options = ReplicaSetOptions::new().with_election_timeout(Duration::from_secs(1));
        let started = dedicated_runtime::run(async move || processes::start(&options).await);
        let set = MongoReplicaSet::new(Servers::Processes(started.await.unwrap()));
        let mut options = ClientOptions::parse(set.uri()).await.unwrap();
        options.write_concern = Some(WriteConcern::majority());
        let client = Client::with_options(options).unwrap();
        Self {
            set,
            notes: client.database("test").collection("notes"),
            written: 0,
        }
    }

    /// Writes a note with a majority and counts all notes. Repeats both, because a client that
    /// still looks for the new primary returns an error.
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
        assert_eq!(count, self.written, "no majority write is lost");
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
        options.server_selection_timeout = Some(Duration::from_secs(1));
        let database = Client::with_options(options).unwrap().database("admin");
        let ping = async move { database.run_command(doc! { "ping": 1 }).await };
        let answer = tokio::time::timeout(Duration::from_secs(2), ping).await;
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
    let [one, two, three] = set.set.members().map(|member| set.answers(member));
    assert_eq!(tokio::join!(one, two, three), (false, false, false));
    for member in set.set.members() {
        set.set.start_again(member).await.unwrap();
    }
    set.set.settled().await.unwrap();
    set.works().await;

    let refused = set.set.cut(primary, CutFrom::MembersAndClients).await;
    assert!(matches!(refused, Err(MemberError::NeedsContainers)));

    let frozen = set.set.settled().await.unwrap();
    set.set.freeze(frozen).await.unwrap();
    set.set.shut_down().await.unwrap();
}
