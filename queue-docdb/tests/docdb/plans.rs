//! The server's query plans, by its profiler.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Bson, DateTime, Document, doc};
use queue_api::{LeaseChange, LeaseOptions, PageOptions, Purge, Queue, QueueAdmin, Redrive};

use crate::fixture::{Fixture, MINUTE, applied, lease, message, name, queue_of};

tests! {
    on_one_thread:
        nothing_scans_a_collection_or_sorts_in_memory,
        a_claim_reads_what_it_takes_and_no_more
}

async fn start_profiling(fixture: &Fixture) {
    let start = doc! { "profile": 2 };
    fixture.raw.run_command(start).await.unwrap();
}

/// All operations on the queue since profiling began.
async fn profile(fixture: &Fixture) -> Vec<Document> {
    fixture
        .raw
        .run_command(doc! { "profile": 0 })
        .await
        .unwrap();
    let mut cursor = fixture
        .raw
        .collection::<Document>("system.profile")
        .find(doc! { "ns": format!("{}.queue.mail", fixture.raw.name()) })
        .await
        .unwrap();
    let mut operations = Vec::new();
    while cursor.advance().await.unwrap() {
        operations.push(cursor.deserialize_current().unwrap());
    }
    operations
}

fn number(operation: &Document, field: &str) -> i64 {
    match operation.get(field) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        _ => 0,
    }
}

/// A queue with messages in each state, so that a plan that reads too many shows.
async fn crowded(size: usize) -> Fixture {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    // Parted entries, for the counts.
    store(&queue, "parted", 20, Duration::ZERO).await;
    for delivery in lease(&queue, 7).await {
        applied(queue.nack(&delivery.receipt, MINUTE)).await;
    }
    let rest = lease(&queue, 20).await;
    assert_eq!(rest.len(), 13);
    store(&queue, "dead", 200, Duration::ZERO).await;
    let changes: Vec<_> = lease(&queue, 200)
        .await
        .into_iter()
        .map(|delivery| LeaseChange::dead_letter(delivery.receipt, "no"))
        .collect();
    queue.change_batch(&changes).await.unwrap();
    store(&queue, "leased", 200, Duration::ZERO).await;
    lease(&queue, 200).await;
    store(&queue, "delayed", size, MINUTE).await;
    store(&queue, "ready", size, Duration::ZERO).await;
    fixture
}

/// Enqueues by four calls at a time, because each waits for the disk.
async fn store(queue: &Queue, kind: &str, size: usize, delay: Duration) {
    let numbers: Vec<usize> = (0..size).collect();
    let batches = numbers.chunks(1000).map(|numbers| async {
        let named = |n: &usize| message(&format!("{kind}{n}")).with_delay(delay);
        let messages: Vec<_> = numbers.iter().map(named).collect();
        queue.enqueue_batch(&messages).await.map(drop)
    });
    let stored = stream::iter(batches).buffer_unordered(4);
    stored.try_collect::<()>().await.unwrap();
}

/// A nearly empty queue, and a large backlog.
const SIZES: [usize; 2] = [10, 100_000];

async fn nothing_scans_a_collection_or_sorts_in_memory() {
    for size in SIZES {
        check_plans_of_all_calls(&crowded(size).await).await;
    }
}

async fn check_plans_of_all_calls(fixture: &Fixture) {
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    start_profiling(fixture).await;

    let deliveries = lease(&queue, 10).await;
    let receipts: Vec<_> = deliveries
        .into_iter()
        .map(|delivery| delivery.receipt)
        .collect();
    queue.ack_batch(&receipts[..5]).await.unwrap();
    applied(queue.ack(&receipts[5])).await;
    applied(queue.extend(&receipts[6], MINUTE)).await;
    applied(queue.release(&receipts[7])).await;
    applied(queue.nack(&receipts[8], MINUTE)).await;
    queue.stats().await.unwrap();
    queue.wait(MINUTE).await.unwrap();
    backend.peek(&name(), 10).await.unwrap();
    let page = PageOptions::new(10);
    let first = backend.messages(&name(), &page).await.unwrap();
    let next = page.clone().with_token(first.next.expect("there are more"));
    backend.messages(&name(), &next).await.unwrap();
    backend.dead_letters(&name(), &page).await.unwrap();
    let some = Redrive::Ids(vec![crate::fixture::id("dead1")]);
    assert_eq!(backend.redrive(&name(), &some).await.unwrap(), 1);
    assert_eq!(backend.redrive(&name(), &Redrive::All).await.unwrap(), 199);
    // After a claim of an entry of many messages, the next one expects more of them.
    let batch = (0..16).map(|n| message(&format!("batch{n}")));
    queue
        .enqueue_batch(&batch.collect::<Vec<_>>())
        .await
        .unwrap();
    let first = doc! { "$set": { "visible_at": DateTime::from_millis(-1) } };
    fixture.change_document("batch0", first).await;
    // One without a cursor, which does not know that a test changes times.
    let other = queue_of(&fixture.another_backend(fixture.clock.clone()).await);
    assert_eq!(lease(&other, 16).await.len(), 16);
    // After a while it looks again, whatever it remembers.
    #[allow(clippy::disallowed_methods)] // that is real time
    tokio::time::sleep(Duration::from_millis(250)).await;
    // It finds fewer, so it takes several rounds. They pass over what the first one has delivered,
    // which is ready again.
    for n in 0..3 {
        let (id, time) = (format!("early{n}"), DateTime::from_millis(n));
        queue.enqueue(&message(&id)).await.unwrap();
        let early = doc! { "$set": { "visible_at": time } };
        fixture.change_document(&id, early).await;
    }
    let at_once = LeaseOptions::new(3).with_visibility_timeout(Duration::ZERO);
    assert_eq!(other.lease_batch(&at_once).await.unwrap().len(), 3);
    backend.purge(&name(), Purge::Dead).await.unwrap();

    let mut operations = profile(fixture).await;

    let passes = |operation: &Document| operation.to_string().contains("$nin");
    assert!(
        operations.iter().any(passes),
        "no claim passed over entries"
    );
    let profiled = operations.len();
    assert!(profiled > 15, "the profiler saw {profiled}");
    // Alone, because the profiler keeps a limited number of operations.
    start_profiling(fixture).await;
    backend.purge(&name(), Purge::Live).await.unwrap();
    operations.extend(profile(fixture).await);
    for operation in &operations {
        let plan = operation.get_str("planSummary").unwrap_or_default();
        assert!(!plan.contains("COLLSCAN"), "{operation}");
        assert!(
            !operation.get_bool("hasSortStage").unwrap_or(false),
            "{operation}"
        );
        // The server compared several plans, and may choose another one next time.
        assert!(
            !operation.get_bool("fromMultiPlanner").unwrap_or(false),
            "{operation}"
        );
    }
}

async fn a_claim_reads_what_it_takes_and_no_more() {
    for size in SIZES {
        check_plan_of_a_claim(&crowded(size).await).await;
    }
}

async fn check_plan_of_a_claim(fixture: &Fixture) {
    start_profiling(fixture).await;
    assert_eq!(lease(&fixture.queue(), 10).await.len(), 10);
    let operations = profile(fixture).await;
    assert_eq!(operations.len(), 2, "a find and an update: {operations:?}");
    let [find, update] = [&operations[0], &operations[1]];
    assert_eq!(find.get_str("op").unwrap(), "query");
    assert_eq!(
        find.get_str("planSummary").unwrap(),
        "IXSCAN { visible_at: 1 }"
    );
    // Ten messages may begin within an entry and end within the next one.
    let entries = number(find, "nreturned");
    assert!((1..=2).contains(&entries), "{find}");
    assert_eq!(number(find, "docsExamined"), entries);
    assert!(number(find, "keysExamined") <= entries + 1, "{find}");
    assert!(
        find.get_bool("cursorExhausted").unwrap(),
        "no cursor stays open: {find}"
    );
    assert_eq!(update.get_str("planSummary").unwrap(), "IXSCAN { _id: 1 }");
    let written = number(update, "nMatched");
    assert!((1..=entries).contains(&written), "{update}");
    assert_eq!(number(update, "docsExamined"), written);
    // One more key for the end of each interval.
    assert!(
        number(update, "keysExamined") <= 2 * written + 1,
        "{update}"
    );
}
