//! The commands of each call, and where claims start.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::{
    bson::{DateTime, Document, doc},
    event::command::CommandEvent,
};
use queue_api::{
    EnqueueOutcome::{Duplicate, Stored},
    LeaseChange, LeaseOptions, NewMessage, PageOptions, Purge, Queue, QueueAdmin, Receipt,
};
use queue_docdb::DocDbBackend;

use crate::fixture::{Fixture, MINUTE, SECOND, applied, ids, lease, message, name, queue_of};

tests! {
    on_one_thread:
        the_first_call_of_an_instance_looks_and_makes_what_is_missing,
        only_an_index_of_a_queue_with_documents_is_built_by_a_quorum,
        each_call_sends_as_few_commands_as_it_can,
        an_enqueue_of_known_ids_sends_two_commands_more,
        a_page_of_messages_is_one_find_of_the_entries_that_it_needs,
        claims_on_a_backlog_start_where_the_last_one_did,
        a_lease_behind_exhausted_messages_reads_at_most_300_at_a_time,
        a_purge_does_not_begin_again_with_each_chunk
}

/// The commands of a backend since the last `take`.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<Mutex<Vec<Document>>>);

impl Sent {
    /// Another instance, which has used no queue.
    async fn by_a_new_backend(fixture: &Fixture) -> (Self, DocDbBackend) {
        let sent = Self::default();
        let seen = sent.clone();
        let watched = fixture.watched(move |event| {
            if let CommandEvent::Started(started) = event {
                seen.0.lock().unwrap().push(started.command.clone());
            }
        });
        let backend = watched.connect().await.unwrap();
        sent.take();
        (sent, backend)
    }

    /// The queue of another instance, which has not used it.
    async fn by_a_new_one(fixture: &Fixture) -> (Self, Queue) {
        let (sent, backend) = Self::by_a_new_backend(fixture).await;
        (sent, queue_of(&backend))
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
    let make = [&["create"][..], &["createIndexes"; 4], &["insert"]].concat();
    assert_eq!(sent.names(), [&look[..], &make, &["insert"]].concat());

    let (sent, queue) = Sent::by_a_new_one(&fixture).await;
    queue.enqueue(&message("b")).await.unwrap();
    assert_eq!(sent.names(), ["find", "listIndexes", "update", "insert"]);
    let (sent, queue) = Sent::by_a_new_one(&fixture).await;
    queue.lease().await.unwrap();
    let look = ["find", "listIndexes", "update"];
    assert_eq!(sent.names(), [&look[..], &["find", "update"]].concat());
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
    assert_eq!(quorums().await, vec![None; 4]);
    fixture.documents().drop_indexes().await.unwrap();
    assert_eq!(quorums().await, vec![Some("majority".to_owned()); 4]);
}

async fn each_call_sends_as_few_commands_as_it_can() {
    let fixture = Fixture::new().await;
    let (sent, queue) = Sent::by_another(&fixture).await;
    let take = |number: usize| {
        let options = LeaseOptions::new(number);
        let queue = queue.clone();
        async move {
            let leased = queue.lease_batch(&options).await.unwrap();
            assert_eq!(leased.len(), number);
            let receipts = leased.into_iter().map(|it| it.receipt);
            receipts.collect::<Vec<_>>()
        }
    };
    queue.enqueue(&NewMessage::new("one")).await.unwrap();
    assert_eq!(sent.names(), ["insert"]);
    let one = take(1).await.remove(0);
    assert_eq!(sent.names(), ["find", "update"]);
    applied(queue.ack(&one)).await;
    assert_eq!(sent.names(), ["delete"]);

    // Messages that share a document.
    let several: Vec<_> = (0..5).map(|_| NewMessage::new("several")).collect();
    queue.enqueue_batch(&several).await.unwrap();
    assert_eq!(sent.names(), ["insert"]);
    let receipts = take(5).await;
    assert_eq!(sent.names(), ["find", "update"]);
    queue.ack_batch(&receipts).await.unwrap();
    assert_eq!(sent.names(), ["delete"]);
    queue.enqueue_batch(&several).await.unwrap();
    let receipts = take(5).await;
    sent.take();
    applied(queue.ack(&receipts[0])).await;
    assert_eq!(sent.names(), ["update"]);
    applied(queue.nack(&receipts[1], MINUTE)).await;
    assert_eq!(sent.names(), ["update"]);
    // Only a look tells that a receipt is not good.
    assert!(!queue.ack(&receipts[0]).await.unwrap().is_applied());
    assert_eq!(sent.names(), ["find", "update"]);

    let messages: Vec<_> = (0..500).map(|n| message(&format!("m{n}"))).collect();
    queue.enqueue_batch(&messages).await.unwrap();
    assert_eq!(sent.names(), ["insert"]);
    let receipts = take(400).await;
    assert_eq!(sent.names(), ["find", "update"]);
    let extensions: Vec<_> = receipts
        .iter()
        .map(|receipt| LeaseChange::extend(receipt.clone(), MINUTE))
        .collect();
    queue.change_batch(&extensions).await.unwrap();
    assert_eq!(sent.names(), ["find", "update"]);
    queue.ack_batch(&receipts[..160]).await.unwrap();
    assert_eq!(sent.names(), ["find", "delete"]);
    // Of some entries all that is left, of the last one a part.
    queue.ack_batch(&receipts[160..399]).await.unwrap();
    let mut names = sent.names();
    names[1..].sort();
    assert_eq!(names, ["find", "delete", "update"]);
}

/// What the queue holds of the ids decides, not what is refused: a find and another insert.
async fn an_enqueue_of_known_ids_sends_two_commands_more() {
    let fixture = Fixture::new().await;
    let (sent, queue) = Sent::by_another(&fixture).await;
    let batch = ["a", "b", "c"].map(message);
    queue.enqueue(&batch[1]).await.unwrap();
    sent.take();
    let outcomes = queue.enqueue_batch(&batch).await.unwrap();
    assert_eq!(outcomes, [Stored, Duplicate, Stored]);
    assert_eq!(sent.names(), ["insert", "find", "insert"]);
    // A refused message that has a document of its own is a duplicate.
    assert_eq!(queue.enqueue(&batch[1]).await.unwrap(), Duplicate);
    assert_eq!(sent.names(), ["insert"]);
}

async fn a_page_of_messages_is_one_find_of_the_entries_that_it_needs() {
    let fixture = Fixture::new().await;
    let sent = (0..100).map(|n| message(&format!("m{n:02}")));
    let messages: Vec<_> = sent.collect();
    fixture.queue().enqueue_batch(&messages).await.unwrap();
    let (sent, backend) = Sent::by_a_new_backend(&fixture).await;
    let mut page = PageOptions::new(10);
    let mut listed = Vec::new();
    loop {
        let messages = backend.messages(&name(), &page).await.unwrap();
        let commands = sent.take();
        let find = commands.last().expect("a find");
        if page.token().is_some() {
            assert_eq!(commands.len(), 1, "{commands:?}");
            // Entries have 16 messages, so a page may begin in one and end in the next one.
            assert_eq!(find.get_i64("limit"), Ok(2), "{find}");
        }
        assert_eq!(find.get_document("hint"), Ok(&doc! { "_id": 1 }));
        listed.extend(messages.iter().map(|message| message.id.clone()));
        let Some(token) = messages.next else { break };
        assert_eq!(
            messages.messages.len(),
            10,
            "a page may end within an entry"
        );
        page = page.with_token(token);
    }
    let expected: Vec<_> = messages.into_iter().map(|message| message.id).collect();
    assert_eq!(listed, expected, "entries are in order of their enqueue");
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

async fn a_lease_behind_exhausted_messages_reads_at_most_300_at_a_time() {
    let fixture = Fixture::new().await;
    let (sent, queue) = Sent::by_another(&fixture).await;
    // Each has settings of its own, and so an entry of its own.
    let exhausted: Vec<_> = (0..1000)
        .map(|n| {
            let visibility = SECOND + Duration::from_millis(n);
            let message = NewMessage::new("").with_visibility_timeout(visibility);
            message.with_max_attempts(1)
        })
        .collect();
    queue.enqueue_batch(&exhausted).await.unwrap();
    assert_eq!(lease(&queue, 1000).await.len(), 1000);
    fixture.clock.advance(MINUTE);
    queue.enqueue(&message("live")).await.unwrap();
    sent.take();
    assert_eq!(ids(&lease(&queue, 1).await), ["live"]);
    assert_eq!(queue.stats().await.unwrap().dead, 1000);
    let sent = sent.take();
    let limits = sent.iter().filter_map(|it| it.get_i64("limit").ok());
    let most = limits.max().expect("a find");
    assert!(most <= 300, "{most}");
}

async fn a_purge_does_not_begin_again_with_each_chunk() {
    let fixture = Fixture::new().await;
    let (sent, backend) = Sent::by_a_new_backend(&fixture).await;
    // Each has an entry of its own.
    let batch = (1..=1500).map(|n| message(&format!("m{n}")).with_max_attempts(n));
    let batch: Vec<_> = batch.collect();
    queue_of(&backend).enqueue_batch(&batch).await.unwrap();
    sent.take();
    let purged = backend.purge(&name(), Purge::Live).await;
    assert_eq!(purged.unwrap(), 1500);
    let finds = sent.take().into_iter();
    let filters = finds.filter_map(|sent| sent.get_document("filter").ok().cloned());
    let start = |filter: Document| {
        let times = filter.get_document("visible_at").unwrap();
        *times.get_datetime("$gte").unwrap()
    };
    let starts: Vec<DateTime> = filters.map(start).collect();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert_eq!(starts[0], DateTime::MIN);
    assert!(starts[1] > DateTime::MIN, "{starts:?}");
}
