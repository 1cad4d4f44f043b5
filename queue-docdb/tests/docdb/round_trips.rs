//! The commands of each call, and where claims start.

use std::sync::{Arc, Mutex};

use mongodb::{
    bson::{DateTime, Document, doc},
    event::command::CommandEvent,
};
use queue_api::{LeaseChange, NewMessage, Queue, Receipt};

use crate::fixture::{Fixture, MINUTE, SECOND, applied, ids, lease, message, queue_of};

tests! {
    on_one_thread:
        the_first_call_of_an_instance_looks_and_makes_what_is_missing,
        only_an_index_of_a_queue_with_documents_is_built_by_a_quorum,
        each_call_sends_as_few_commands_as_it_can,
        claims_on_a_backlog_start_where_the_last_one_did
}

/// The commands of a backend since the last `take`.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<Mutex<Vec<Document>>>);

impl Sent {
    /// The queue of another instance, which has not used it.
    async fn by_a_new_one(fixture: &Fixture) -> (Self, Queue) {
        let sent = Self::default();
        let seen = sent.clone();
        let watched = fixture.watched(move |event| {
            if let CommandEvent::Started(started) = event {
                seen.0.lock().unwrap().push(started.command.clone());
            }
        });
        let queue = queue_of(&watched.connect().await.unwrap());
        sent.take();
        (sent, queue)
    }

    /// The same, which has used it before.
    pub(crate) async fn by_another(fixture: &Fixture) -> (Self, Queue) {
        let (sent, queue) = Self::by_a_new_one(fixture).await;
        queue.enqueue(&message("first")).await.unwrap();
        let first = queue.lease().await.unwrap().expect("the first");
        applied(queue.ack(&first.receipt)).await;
        sent.take();
        (sent, queue)
    }

    pub(crate) fn take(&self) -> Vec<Document> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.take().into_iter();
        names
            .map(|sent| sent.keys().next().unwrap().clone())
            .collect()
    }
}

async fn the_first_call_of_an_instance_looks_and_makes_what_is_missing() {
    let fixture = Fixture::new().await;
    let (sent, queue) = Sent::by_a_new_one(&fixture).await;
    let look = ["find", "listCollections"];
    queue.lease().await.unwrap();
    assert_eq!(sent.names(), [&look[..], &["find"]].concat());
    queue.enqueue(&message("a")).await.unwrap();
    let make = ["create", "createIndexes", "createIndexes", "insert"];
    assert_eq!(sent.names(), [&look[..], &make, &["insert"]].concat());

    let (sent, queue) = Sent::by_a_new_one(&fixture).await;
    queue.enqueue(&message("b")).await.unwrap();
    assert_eq!(sent.names(), ["find", "listIndexes", "insert"]);
    let (sent, queue) = Sent::by_a_new_one(&fixture).await;
    queue.lease().await.unwrap();
    assert_eq!(sent.names(), ["find", "listIndexes", "find", "update"]);
    let (sent, queue) = Sent::by_a_new_one(&fixture).await;
    queue.wait(MINUTE).await.unwrap();
    assert_eq!(sent.names(), ["find", "listIndexes", "find"]);
    let (sent, queue) = Sent::by_a_new_one(&fixture).await;
    assert!(!queue.ack(&Receipt::new("x")).await.unwrap().is_applied());
    assert_eq!(sent.names(), ["find"]);
}

/// A build in an empty collection waits for no member, so it needs no quorum.
async fn only_an_index_of_a_queue_with_documents_is_built_by_a_quorum() {
    let fixture = Fixture::new().await;
    let quorums = async || {
        let (sent, queue) = Sent::by_a_new_one(&fixture).await;
        queue.enqueue(&NewMessage::new("x")).await.unwrap();
        let sent = sent.take();
        let builds = sent.iter().filter(|it| it.contains_key("createIndexes"));
        let quorums = builds.map(|it| it.get_str("commitQuorum").ok().map(str::to_owned));
        quorums.collect::<Vec<_>>()
    };
    assert_eq!(quorums().await, [None, None]);
    fixture.documents().drop_indexes().await.unwrap();
    assert_eq!(quorums().await, vec![Some("majority".to_owned()); 2]);
}

async fn each_call_sends_as_few_commands_as_it_can() {
    let fixture = Fixture::new().await;
    let (sent, queue) = Sent::by_another(&fixture).await;
    let messages: Vec<_> = (0..500).map(|n| message(&format!("m{n}"))).collect();
    queue.enqueue_batch(&messages).await.unwrap();
    assert_eq!(sent.names(), ["insert"]);
    queue.enqueue(&NewMessage::new("one")).await.unwrap();
    assert_eq!(sent.names(), ["insert"]);

    let one = queue.lease().await.unwrap().expect("ready");
    assert_eq!(sent.names(), ["find", "update"]);
    applied(queue.ack(&one.receipt)).await;
    assert_eq!(sent.names(), ["delete"]);

    let deliveries = lease(&queue, 400).await;
    assert_eq!(deliveries.len(), 400);
    assert_eq!(sent.names(), ["find", "update"]);
    let receipts: Vec<_> = deliveries.into_iter().map(|it| it.receipt).collect();
    let extensions: Vec<_> = receipts
        .iter()
        .map(|receipt| LeaseChange::extend(receipt.clone(), MINUTE))
        .collect();
    queue.change_batch(&extensions).await.unwrap();
    assert_eq!(sent.names(), ["update"]);
    queue.ack_batch(&receipts).await.unwrap();
    assert_eq!(sent.names(), ["find", "delete"]);
}

/// The ready time from which a find starts; `None` for the beginning.
fn start(find: &Document) -> Option<DateTime> {
    let filter = find.get_document("filter").ok()?;
    filter
        .get_document("visible_at")
        .ok()?
        .get_datetime("$gte")
        .ok()
        .copied()
}

async fn claims_on_a_backlog_start_where_the_last_one_did() {
    let fixture = Fixture::new().await;
    let (sent, queue) = Sent::by_another(&fixture).await;
    for n in 0..6 {
        queue.enqueue(&message(&format!("m{n}"))).await.unwrap();
        fixture.clock.advance(SECOND);
    }
    // Some start at the beginning; on a slow machine, many do.
    let mut starts = Vec::new();
    for _ in 0..50 {
        sent.take();
        let one = queue.lease().await.unwrap().expect("there are six");
        starts.extend(start(&sent.take()[0]));
        applied(queue.release(&one.receipt)).await;
    }
    assert!(!starts.is_empty(), "each started at the beginning");
    let first = *fixture
        .document("m5")
        .await
        .get_datetime("visible_at")
        .unwrap();

    // A message that comes in late, from a slow clock or a long transaction.
    let early = DateTime::from_millis(first.timestamp_millis() - 60_000);
    fixture
        .change_document("m5", doc! { "$set": { "visible_at": early } })
        .await;
    let rest = lease(&queue, 9).await;
    let mut rest = ids(&rest);
    rest.sort_unstable();
    assert_eq!(rest, ["m0", "m1", "m2", "m3", "m4", "m5"]);
    assert!(lease(&queue, 9).await.is_empty());
}
