//! The stored documents: what an operator sees.

use mongodb::bson::{Bson, Document, doc};
use queue_api::{LeaseChange, LeaseOutcome};

use crate::fixture::{Fixture, MINUTE, SECOND, applied, id, lease, message};

tests! {
    on_one_thread:
        a_document_has_the_documented_fields,
        messages_of_different_settings_have_documents_of_their_own,
        an_id_that_is_a_uuid_takes_sixteen_bytes
}

/// The names of a document's fields, in alphabetical order.
fn fields(document: &Document) -> String {
    let mut names: Vec<&str> = document.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.join(" ")
}

fn parts(document: &Document) -> Vec<&Document> {
    let parts = document.get_array("parts").unwrap();
    parts
        .iter()
        .map(|part| part.as_document().unwrap())
        .collect()
}

async fn a_document_has_the_documented_fields() {
    const WHOLE: &str =
        "_id attempts count enqueued_at ids max_attempts messages rev visibility visible_at";
    const PARTED: &str = "_id enqueued_at ids max_attempts messages parted parts rev visibility";
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let sent = ["a", "b", "c"].map(|name| message(name).with_visibility_timeout(MINUTE));
    let sent = sent.map(|sent| sent.with_header("a.b", "$c"));
    queue.enqueue_batch(&sent).await.unwrap();
    let stored = fixture.document("a").await;
    assert_eq!(fields(&stored), WHOLE);
    assert_eq!(stored.get_i64("visibility").unwrap(), 60_000);
    assert_eq!(stored.get_i64("count").unwrap(), 3);
    let all = ["a", "b", "c"].map(Bson::from);
    assert_eq!(stored.get_array("ids").unwrap(), &all);
    let messages = stored.get_array("messages").unwrap();
    let first = messages[0].as_document().unwrap();
    assert_eq!(fields(first), "headers payload");
    let headers = first.get_array("headers").unwrap();
    assert_eq!(headers, &[Bson::from(["a.b", "$c"].to_vec())]);

    // While the messages share a fate, the fields of the document tell it.
    let mut deliveries = lease(&queue, 3).await;
    deliveries.sort_by(|one, other| one.id.cmp(&other.id));
    let stored = fixture.document("a").await;
    assert_eq!(fields(&stored).replace(" lease", ""), WHOLE);
    assert!(stored.contains_key("lease"));
    assert_eq!(stored.get_i64("attempts").unwrap(), 1);
    let expiry = stored.get_datetime("visible_at").unwrap().to_system_time();
    assert_eq!(expiry, deliveries[0].lease_expires_at);

    // Then each part has its own.
    let receipts: Vec<_> = deliveries.into_iter().map(|it| it.receipt).collect();
    applied(queue.ack(&receipts[0])).await;
    let changes = [
        LeaseChange::nack(receipts[1].clone(), SECOND),
        LeaseChange::dead_letter(receipts[2].clone(), "no"),
    ];
    let outcomes = queue.change_batch(&changes).await.unwrap();
    assert_eq!(outcomes, [LeaseOutcome::Applied; 2]);
    let stored = fixture.document("b").await;
    let names = format!("dead_key {PARTED} visible_at").replace("dead_key _id", "_id dead_key");
    assert_eq!(fields(&stored), names);
    assert!(stored.get_bool("parted").unwrap());
    assert_eq!(stored.get_array("ids").unwrap(), &all[1..]);
    assert_eq!(
        stored.get_array("messages").unwrap(),
        messages,
        "not rewritten"
    );
    let [live, dead] = parts(&stored)[..] else {
        panic!("{stored}");
    };
    let at = *live.get_datetime("at").unwrap();
    assert_eq!(
        live,
        &doc! { "m": [1], "n": 1, "attempts": 1_i64, "at": at }
    );
    assert_eq!(*stored.get_datetime("visible_at").unwrap(), at);
    let death = *dead
        .get_document("dead")
        .unwrap()
        .get_datetime("at")
        .unwrap();
    let reason = doc! { "at": death, "reason": "no" };
    assert_eq!(
        dead,
        &doc! { "m": [2], "n": 1, "attempts": 1_i64, "dead": reason }
    );
    let place = stored.get_str("dead_key").unwrap();
    assert!(place.starts_with(&format!("{:016}-", death.timestamp_millis())));

    // Of dead letters only, a claim does not look at it.
    fixture.clock.advance(SECOND);
    let last = queue.lease().await.unwrap().expect("ready");
    applied(queue.ack(&last.receipt)).await;
    let stored = fixture.document("c").await;
    assert_eq!(fields(&stored).replace(" dead_key", ""), PARTED);
}

async fn messages_of_different_settings_have_documents_of_their_own() {
    let fixture = Fixture::new().await;
    let batch = [
        message("a"),
        message("b").with_delay(MINUTE),
        message("c").with_visibility_timeout(MINUTE),
        message("d").with_max_attempts(2),
        message("e"),
        message("f").with_delay(MINUTE),
    ];
    fixture.queue().enqueue_batch(&batch).await.unwrap();
    let mut shared = Vec::new();
    for sent in &batch {
        let stored = fixture.document(sent.id.as_str()).await;
        let ids = stored.get_array("ids").unwrap().iter();
        shared.push(ids.filter_map(Bson::as_str).collect::<String>());
    }
    assert_eq!(shared, ["ae", "bf", "c", "d", "ae", "bf"]);
}

/// Only if it comes back as the same text.
async fn an_id_that_is_a_uuid_takes_sixteen_bytes() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let short = "0192b9c4-7d1e-7c3a-9f00-0123456789ab";
    let texts = [
        short.to_uppercase(),
        short.replace('-', ""),
        format!("{{{short}}}"),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    queue
        .enqueue(&message("a").with_id(id(short)))
        .await
        .unwrap();
    for text in &texts {
        queue
            .enqueue(&message("a").with_id(id(text)))
            .await
            .unwrap();
    }
    let documents = fixture.documents();
    let of = async |ids: Bson| {
        documents
            .count_documents(doc! { "ids": ids })
            .await
            .unwrap()
    };
    let uuid = mongodb::bson::Uuid::parse_str(short).unwrap();
    assert_eq!((of(uuid.into()).await, of(short.into()).await), (1, 0));
    for text in &texts {
        assert_eq!(of((*text).into()).await, 1, "{text}");
    }
    let delivered = lease(&queue, 9).await;
    let delivered: Vec<&str> = delivered.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(delivered, [&[short], &texts[..]].concat());
}
