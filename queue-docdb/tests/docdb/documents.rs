//! The stored documents.

use mongodb::bson::{Bson, doc};

use crate::fixture::{Fixture, MINUTE, applied, message};

tests! {
    on_one_thread:
        a_document_has_the_documented_fields
}

async fn a_document_has_the_documented_fields() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let fields = async || {
        let mut names: Vec<String> = fixture.document("a").await.keys().cloned().collect();
        names.sort();
        names.join(" ")
    };
    let sent = message("a")
        .with_header("a.b", "$c")
        .with_visibility_timeout(MINUTE);
    queue.enqueue(&sent).await.unwrap();
    assert_eq!(
        fields().await,
        "_id attempts birth enqueued_at headers max_attempts payload turn visibility visible_at"
    );
    let stored = fixture.document("a").await;
    assert_eq!(stored.get_i64("visibility").unwrap(), 60_000);
    assert_eq!(
        stored.get_array("headers").unwrap(),
        &[Bson::from(["a.b", "$c"].to_vec())]
    );

    let delivery = queue.lease().await.unwrap().expect("ready");
    let stored = fixture.document("a").await;
    assert!(stored.contains_key("lease"));
    assert_eq!(stored.get_i64("attempts").unwrap(), 1);
    let expiry = stored.get_datetime("visible_at").unwrap().to_system_time();
    assert_eq!(expiry, delivery.lease_expires_at);

    applied(queue.nack(&delivery.receipt, MINUTE)).await;
    let stored = fixture.document("a").await;
    assert!(!stored.contains_key("lease") && stored.contains_key("settled"));

    fixture.clock.advance(MINUTE);
    let delivery = queue.lease().await.unwrap().expect("ready");
    applied(queue.dead_letter(&delivery.receipt, "no")).await;
    let stored = fixture.document("a").await;
    assert!(!stored.contains_key("lease") && !stored.contains_key("visible_at"));
    let dead = stored.get_document("dead").unwrap();
    let at = *dead.get_datetime("at").unwrap();
    assert_eq!(dead, &doc! { "id": "a", "at": at, "reason": "no" });
}
