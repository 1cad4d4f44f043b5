//! Documents that cannot be read, at the head of a queue.
//!
//! They are set aside: logged once, counted as dead, not listed, and removed by a purge of dead letters.
//! Every other message is delivered, in order, and each call ends. Such a document is never taken
//! for the end of the queue.

pub(crate) mod dead_letters;
mod documents;
mod parted;

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::join_all, stream};
use mongodb::{
    bson::{DateTime, Document, RawDocumentBuf, doc},
    event::command::CommandEvent,
};
use mongodb_test_server::documentdb::Engines;
use queue_api::{
    DeadLetter, Delivery, PageOptions, Purge, Queue, QueueAdmin, QueueName, QueueStats, Redrive,
    consumer::ListenOptions,
};
use queue_docdb::DocDbBuilder;

use self::documents::{Case, INVALID, Kind, cases, id_kinds, placeholder};
use crate::{
    fixture::{Fixture, MINUTE, SECOND, applied, ids, lease, message, queue_of},
    waking::STREAMING,
    warnings,
};

tests! {
    on_one_thread:
        each_damaged_document_is_logged_once,
        a_count_that_is_no_number_does_not_spoil_the_others;
    on_threads:
        what_cannot_be_delivered_stops_no_call,
        the_largest_documents_stop_no_call,
        competing_claims_pass_what_cannot_be_delivered,
        a_listener_that_polls_is_idle_after_what_it_cannot_get,
        a_listener_with_a_change_stream_is_idle_after_what_it_cannot_get
}

/// A queue, and its collection.
struct Bench<'a> {
    fixture: &'a Fixture,
    name: QueueName,
    queue: Queue,
    documents: mongodb::Collection<RawDocumentBuf>,
}

impl<'a> Bench<'a> {
    fn new(fixture: &'a Fixture, name: &str) -> Self {
        Self {
            fixture,
            name: QueueName::new(name).expect("a name"),
            queue: Queue::new(Arc::new(fixture.backend.clone()), name).expect("a queue"),
            documents: fixture.raw.collection(&format!("queue.{name}")),
        }
    }

    /// Stores documents as they are.
    async fn store(&self, documents: &[RawDocumentBuf]) {
        let before = self.count().await;
        let is_valid = |document: &&RawDocumentBuf| document.to_document().is_ok();
        let (valid, invalid): (Vec<_>, Vec<_>) = documents.iter().partition(is_valid);
        if !valid.is_empty() {
            self.documents.insert_many(valid).await.expect("an insert");
        }
        // The driver does not insert an `_id` that it cannot read. It cannot read the reply to
        // this either, which has the `_id`.
        for document in invalid {
            let none = doc! { "_id": { "$exists": false } };
            let _ = self
                .documents
                .replace_one(none, document)
                .upsert(true)
                .await;
        }
        let stored = self.count().await - before;
        assert_eq!(stored, documents.len() as u64);
    }

    async fn count(&self) -> u64 {
        self.count_of(doc! {}).await
    }

    async fn count_of(&self, filter: Document) -> u64 {
        let counted = self.documents.count_documents(filter);
        counted.await.expect("a count")
    }

    /// What a message looks like in the database, without anything that tells it from others.
    async fn template(&self) -> Document {
        self.queue.enqueue(&message("template")).await.unwrap();
        let documents = self.documents.clone_with_type::<Document>();
        let template = documents.find_one_and_delete(doc! { "ids": "template" });
        template.await.unwrap().expect("a message")
    }

    /// Stores four messages behind the documents. Returns how many documents an empty queue has.
    async fn fill(&self, case: &Case) -> u64 {
        for id in SOUND {
            self.queue.enqueue(&message(id)).await.unwrap();
            self.fixture.clock.advance(Duration::from_millis(1));
        }
        let empty = self.count().await - 4;
        self.store(&case.documents).await;
        empty
    }

    /// The number of documents that are live, as the server sees it.
    async fn live(&self) -> u64 {
        self.count_of(doc! { "visible_at": { "$gte": DateTime::MIN } })
            .await
    }

    /// Leases until nothing is left, and returns how many.
    async fn lease_all(&self, case: &Case) -> u64 {
        let mut leased = Vec::new();
        while sound(leased.clone()).len() < SOUND.len() {
            let left = SOUND.len() - sound(leased.clone()).len();
            let deliveries = lease(&self.queue, case.batch).await;
            let least = left.min(case.batch);
            assert!(deliveries.len() >= least, "{}: {deliveries:?}", case.what);
            leased.extend(deliveries.iter().map(|it| it.id.to_string()));
            // Among the values is a timeout of 0, which is good.
            let is_ready = |it: &&Delivery| it.visibility_timeout.is_zero();
            for ready in deliveries.iter().filter(is_ready) {
                applied(self.queue.extend(&ready.receipt, MINUTE)).await;
            }
        }
        assert_eq!(sound(leased.clone()), SOUND, "{}", case.what);
        let rest = lease(&self.queue, case.batch).await;
        assert_eq!(ids(&rest), [""; 0], "{}", case.what);
        leased.len() as u64
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        let mut page = PageOptions::new(1);
        let mut letters = Vec::new();
        loop {
            let backend = &self.fixture.backend;
            let mut listed = backend.dead_letters(&self.name, &page).await.unwrap();
            letters.append(&mut listed.letters);
            let Some(token) = listed.next else {
                return letters;
            };
            page = PageOptions::new(1).with_token(token);
        }
    }

    /// The ids of all live messages, in pages of at most `max`.
    async fn messages(&self, max: usize) -> Vec<String> {
        let mut page = PageOptions::new(max);
        let mut ids = Vec::new();
        loop {
            let backend = &self.fixture.backend;
            let listed = backend.messages(&self.name, &page).await.unwrap();
            ids.extend(listed.iter().map(|message| message.id.to_string()));
            let Some(token) = listed.next else {
                ids.sort();
                return ids;
            };
            page = PageOptions::new(max).with_token(token);
        }
    }

    /// Fails if a wait ends though nothing becomes ready.
    async fn assert_waits(&self, what: &str) {
        let wait = self.queue.wait(60 * MINUTE);
        let ended = tokio::time::timeout(Duration::from_millis(30), wait).await;
        assert!(ended.is_err(), "{what}: a wait ended: {ended:?}");
    }
}

const SOUND: [&str; 4] = ["m0", "m1", "m2", "m3"];

/// What a message looks like in the database, with a ready time before those of others.
async fn early_template(fixture: &Fixture) -> Document {
    let mut template = Bench::new(fixture, "template").template().await;
    template.insert("visible_at", DateTime::from_millis(1));
    template
}

/// One failure does not hide the others. Cases take turns in a few queues, because making one takes
/// longer than a case.
async fn check_all(fixture: &Fixture, cases: Vec<Case>, at_once: usize) {
    let cases = stream::iter(cases);
    let cases = &tokio::sync::Mutex::new(Box::pin(cases));
    let in_turn = (0..at_once).map(|number| async move {
        let mut failed = Vec::new();
        let bench = Bench::new(fixture, &format!("q{number}"));
        while let Some(case) = async { cases.lock().await.next().await }.await {
            fixture.backend.delete_queue(&bench.name).await.unwrap();
            let checked = AssertUnwindSafe(check(&bench, &case)).catch_unwind();
            if checked.await.is_err() {
                failed.push(case.what);
            }
        }
        failed
    });
    let failed: Vec<String> = join_all(in_turn).await.concat();
    assert!(failed.is_empty(), "{failed:#?}");
}

async fn what_cannot_be_delivered_stops_no_call() {
    let fixture = Fixture::new().await;
    let template = early_template(&fixture).await;
    check_all(&fixture, cases(&template), 4).await;
}

/// The largest document that the server stores cannot grow, neither by a lease nor otherwise.
async fn the_largest_documents_stop_no_call() {
    const LARGEST: usize = 16 << 20;
    let fixture = Fixture::new().await;
    let template = early_template(&fixture).await;
    let invalid = Kind::with_id("id", |_| placeholder(INVALID[0]).into()).invalid(INVALID[0]);
    let foreign = Kind::new("foreign", |document, number| {
        let time = document.get("visible_at").cloned();
        *document =
            doc! { "_id": format!("f{number}"), "ids": [format!("f{number}")], "visible_at": time };
    });
    let in_array = Kind::new("a time in an array", |document, _| {
        document.insert("visible_at", vec![DateTime::from_millis(1)]);
    });
    let others = Kind::new("a message with more fields", |_, _| {});
    let mut cases = Vec::new();
    for (kind, size, several, batch) in [
        (&others, LARGEST, 1, 1),
        (&others, LARGEST - 20, 2, 1000),
        (&others, LARGEST - 200, 1, 2),
        (&others, LARGEST - 10_000, 2, 1),
        (&foreign, LARGEST, 2, 1),
        (&foreign, LARGEST - 100, 1, 1000),
        (&foreign, LARGEST - 1000, 1, 1),
        (&in_array, LARGEST, 2, 2),
        (&invalid, LARGEST, 1, 1),
    ] {
        let documents = (0..several).map(|number| kind.of_size(&template, number, size));
        cases.push(Case {
            what: format!(
                "{several} × {} of {size} bytes, leases of {batch}",
                kind.what
            ),
            documents: documents.collect(),
            batch,
        });
    }
    check_all(&fixture, cases, 1).await;
}

async fn competing_claims_pass_what_cannot_be_delivered() {
    const MESSAGES: usize = 200;
    let fixture = Fixture::new().await;
    let template = early_template(&fixture).await;
    let bench = Bench::new(&fixture, "mail");
    let messages: Vec<_> = (0..MESSAGES).map(|n| message(&format!("m{n}"))).collect();
    bench.queue.enqueue_batch(&messages).await.unwrap();
    let documents = id_kinds().into_iter().flat_map(|kind| {
        let four = (0..4).map(|number| kind.document(&template, number));
        four.collect::<Vec<_>>()
    });
    let documents: Vec<_> = documents.collect();
    bench.store(&documents).await;
    let mut tasks = tokio::task::JoinSet::new();
    for batch in [1, 3, 3, 10, 40] {
        let queue = queue_of(&fixture.another_backend(fixture.clock.clone()).await);
        tasks.spawn(async move {
            let mut delivered = Vec::new();
            while queue.stats().await.unwrap().ready > 0 {
                let deliveries = lease(&queue, batch).await;
                delivered.extend(deliveries.into_iter().map(|delivery| delivery.id));
            }
            delivered
        });
    }
    let delivered = tokio::time::timeout(3 * MINUTE, tasks.join_all()).await;
    let delivered: Vec<_> = delivered
        .expect("not stopped")
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(delivered.len(), MESSAGES);
    assert_eq!(delivered.iter().collect::<HashSet<_>>().len(), MESSAGES);
    let dead = bench.queue.stats().await.unwrap().dead;
    assert_eq!(dead, documents.len() as u64);
    assert_eq!(bench.letters().await, []);
}

/// The commands that a listener sends in two seconds after it has had all messages.
async fn commands_of_an_idle_listener(
    fixture: &Fixture,
    builder: DocDbBuilder,
    sent: &AtomicUsize,
) {
    let template = early_template(fixture).await;
    let bench = Bench::new(fixture, "mail");
    let everything = cases(&template).pop().expect("the last case");
    bench.fill(&everything).await;
    let queue = queue_of(&builder.connect().await.unwrap());
    let mut listener = queue.listen(ListenOptions::new(2)).unwrap();
    let mut left = Vec::from(SOUND);
    while !left.is_empty() {
        let next = tokio::time::timeout(MINUTE, listener.next()).await;
        let lease = next.expect("not stopped").expect("a lease");
        if left.first() == Some(&lease.id().as_str()) {
            left.remove(0);
        }
        applied(lease.ack()).await;
    }
    // The listener looks while it is polled.
    let _ = tokio::time::timeout(SECOND, listener.next()).await;
    sent.store(0, Ordering::Relaxed);
    let next = tokio::time::timeout(2 * SECOND, listener.next()).await;
    assert!(next.is_err(), "{next:?}");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent <= 15, "{sent} commands");
}

async fn a_listener_that_polls_is_idle_after_what_it_cannot_get() {
    let fixture = Fixture::new().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let builder = fixture.watched(counting(&sent));
    commands_of_an_idle_listener(&fixture, builder, &sent).await;
}

async fn a_listener_with_a_change_stream_is_idle_after_what_it_cannot_get() {
    let fixture = Fixture::for_engines(Engines::of(STREAMING)).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let builder = fixture.watched_and_streaming(counting(&sent));
    commands_of_an_idle_listener(&fixture, builder, &sent).await;
}

fn counting(sent: &Arc<AtomicUsize>) -> impl Fn(&CommandEvent) + Send + Sync + 'static {
    let sent = Arc::clone(sent);
    move |event| {
        if let CommandEvent::Started(_) = event {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Those whose `_id` no command can contain may be set aside by the first one's warning.
async fn each_damaged_document_is_logged_once() {
    let fixture = Fixture::new().await;
    let template = early_template(&fixture).await;
    let (exact, inexact): (Vec<Kind>, Vec<Kind>) = id_kinds()
        .into_iter()
        .partition(|kind| kind.invalid.is_empty());
    for (name, kinds, least) in [("exact", &exact, exact.len()), ("inexact", &inexact, 1)] {
        let before = warnings::on_this_thread();
        let bench = Bench::new(&fixture, name);
        let messages = SOUND.map(message);
        bench.queue.enqueue_batch(&messages).await.unwrap();
        let documents = kinds.iter().map(|kind| kind.document(&template, 0));
        bench.store(&documents.collect::<Vec<_>>()).await;
        for _ in 0..5 {
            lease(&bench.queue, 1).await;
            bench.queue.stats().await.unwrap();
        }
        let warned = warnings::on_this_thread() - before;
        assert!((least..=kinds.len()).contains(&warned), "{name}: {warned}");
    }
}

/// Puts the documents before four messages, and makes every call.
async fn check(bench: &Bench<'_>, case: &Case) {
    let (queue, admin) = (&bench.queue, &bench.fixture.backend);
    let what = case.what.as_str();
    let empty = bench.fill(case).await;
    // Without those that no claim finds, because they have no time.
    let all = bench.count().await - empty;
    let live = bench.live().await;

    // Calls that read.
    queue.stats().await.unwrap();
    let peeked = admin.peek(&bench.name, 1).await.unwrap();
    assert_eq!(peeked.len(), 1, "{what}");
    let most = 4 + case.documents.len();
    let peeked = admin.peek(&bench.name, most).await.unwrap();
    let peeked = peeked.iter().map(|it| it.id.to_string());
    assert_eq!(sound(peeked), SOUND, "{what}");
    for max in [3, most] {
        assert_eq!(sound(bench.messages(max).await), SOUND, "{what}");
    }
    queue.wait(MINUTE).await.unwrap();

    let leased = bench.lease_all(case).await;
    bench.assert_waits(what).await;
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.ready, stats.leased), (0, leased), "{what}");
    let letters = bench.letters().await;
    let listed = PageOptions::new(letters.len() + 1);
    let listed = admin.dead_letters(&bench.name, &listed).await.unwrap();
    assert_eq!(listed.letters, letters, "{what}");
    let set_aside = stats.dead - letters.len() as u64;
    let readable = bench.live().await;
    assert!(
        readable <= live - set_aside,
        "{what}: {stats:?}, {readable}"
    );

    let mut redriven = 0;
    if let Some(letter) = letters.last() {
        let last = Redrive::Ids(vec![letter.id.clone()]);
        redriven = admin.redrive(&bench.name, &last).await.unwrap();
        assert_eq!(redriven, 1, "{what}");
    }
    redriven += admin.redrive(&bench.name, &Redrive::All).await.unwrap();
    assert_eq!(redriven, letters.len() as u64, "{what}");
    let repaired = lease(queue, 1000).await.len() as u64;
    assert_eq!(repaired, redriven, "{what}");
    let after = queue.stats().await.unwrap();
    assert_eq!((after.ready, after.dead), (0, set_aside), "{what}");
    bench.assert_waits(what).await;

    // Purges, of what claims have found and of what none has seen yet.
    let purged = admin.purge(&bench.name, Purge::Dead).await.unwrap();
    assert_eq!(purged, set_aside, "{what}");
    purge_all(bench, what).await;
    assert_eq!(bench.count().await, empty + all - live, "{what}");
    admin.delete_queue(&bench.name).await.unwrap();
    // That with the version stays.
    assert_eq!(bench.count().await, 1, "{what}");
    bench.fill(case).await;
    purge_all(bench, what).await;
    assert_eq!(bench.count().await, empty + all - live, "{what}");
    bench.assert_waits(what).await;
}

/// What a purge of live messages cannot read, it sets aside.
async fn purge_all(bench: &Bench<'_>, what: &str) {
    let (queue, admin) = (&bench.queue, &bench.fixture.backend);
    let purged = admin.purge(&bench.name, Purge::Live).await.unwrap();
    let stats = queue.stats().await.unwrap();
    let live = (stats.ready, stats.delayed, stats.leased);
    assert_eq!(live, (0, 0, 0), "{what}, {purged} purged");
    let purged = admin.purge(&bench.name, Purge::Dead).await.unwrap();
    assert_eq!(purged, stats.dead, "{what}");
    assert_eq!(
        queue.stats().await.unwrap(),
        QueueStats::default(),
        "{what}"
    );
}

fn sound(ids: impl IntoIterator<Item = String>) -> Vec<String> {
    let ids = ids.into_iter();
    ids.filter(|id| SOUND.contains(&id.as_str())).collect()
}

async fn a_count_that_is_no_number_does_not_spoil_the_others() {
    let fixture = Fixture::new().await;
    let bench = Bench::new(&fixture, "mail");
    let template = parted::template(&bench.template().await);
    bench
        .queue
        .enqueue_batch(&["a", "b"].map(message))
        .await
        .unwrap();
    let leased = lease(&bench.queue, 2).await;
    applied(bench.queue.extend(&leased[0].receipt, 2 * MINUTE)).await;
    for count in [f64::NAN, f64::NEG_INFINITY, -9.0] {
        let damaged = Kind::new("waiting", move |document, _| {
            let parts = document.get_array_mut("parts").unwrap();
            let waiting = parts[0].as_document_mut().unwrap();
            waiting.extend(doc! { "at": DateTime::MAX, "n": count });
            document.insert("visible_at", DateTime::MAX);
        });
        bench.store(&[damaged.document(&template, 0)]).await;
        assert_eq!(bench.queue.stats().await.unwrap().leased, 2, "{count}");
    }
}
