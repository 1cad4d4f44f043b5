//! Documents that another program changed.

use mongodb::bson::doc;
use queue_api::{LeaseChange, LeaseOutcome, PageOptions, QueueAdmin, Redrive};

use crate::fixture::{Fixture, applied, id, ids, lease, message, name, queue_of};

tests! {
    on_one_thread:
        what_cannot_be_read_is_set_aside_and_can_be_repaired,
        a_damaged_document_is_not_in_the_way_of_other_receipts,
        numbers_of_other_types_are_read
}

async fn what_cannot_be_read_is_set_aside_and_can_be_repaired() {
    let fixture = Fixture::new().await;
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    for each in ["damaged", "intact"] {
        queue.enqueue(&message(each)).await.unwrap();
    }
    let before = fixture.document("damaged").await;
    let damage = doc! { "$set": { "visibility": "soon" } };
    fixture.change_document("damaged", damage).await;
    assert_eq!(backend.peek(&name(), 9).await.unwrap().len(), 1);
    let page = PageOptions::new(9);
    assert_eq!(backend.messages(&name(), &page).await.unwrap().len(), 1);
    assert_eq!(ids(&lease(&queue, 1).await), ["intact"]);
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.ready, stats.dead), (0, 1));
    let letters = backend.dead_letters(&name(), &page).await.unwrap();
    assert_eq!(letters.len(), 0, "it cannot be read, so it is not listed");
    for which in [Redrive::All, Redrive::Ids(vec![id("damaged")])] {
        assert_eq!(backend.redrive(&name(), &which).await.unwrap(), 0);
    }
    let stored = fixture.document("damaged").await;
    assert!(!stored.get_bool("visible_at").unwrap());

    let fields = ["visibility", "visible_at"].map(|field| (field.to_owned(), before.get(field)));
    let fields = fields.map(|(field, value)| (field, value.unwrap().clone()));
    let repair = doc! { "$set": mongodb::bson::Document::from_iter(fields) };
    fixture.change_document("damaged", repair).await;
    let delivery = queue.lease().await.unwrap().expect("repaired");
    assert_eq!(delivery.payload, "payload of damaged");
    assert_eq!(queue.stats().await.unwrap().dead, 0);
}

async fn a_damaged_document_is_not_in_the_way_of_other_receipts() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    for each in ["damaged", "intact"] {
        queue.enqueue(&message(each)).await.unwrap();
    }
    let deliveries = lease(&queue, 2).await.into_iter();
    let releases: Vec<_> = deliveries
        .map(|it| LeaseChange::release(it.receipt))
        .collect();
    let damage = doc! { "$set": { "visibility": "soon" } };
    fixture.change_document("damaged", damage).await;
    // Another instance looks. This one goes on with what it has read and written.
    let other = queue_of(&fixture.another_backend(fixture.clock.clone()).await);
    let outcomes = other.change_batch(&releases).await.unwrap();
    assert_eq!(outcomes, [LeaseOutcome::Lost, LeaseOutcome::Applied]);
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.ready, stats.leased, stats.dead), (1, 0, 1));
}

async fn numbers_of_other_types_are_read() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let sent = message("a").with_max_attempts(2);
    queue.enqueue(&sent).await.unwrap();
    // An old shell turns every number into a double.
    let doubles = doc! { "attempts": 0.0, "max_attempts": 2.0, "visibility": 1000, "count": 1.0 };
    fixture.change_document("a", doc! { "$set": doubles }).await;
    let delivery = queue.lease().await.unwrap().expect("still readable");
    assert_eq!(delivery.attempt, 1);
    applied(queue.ack(&delivery.receipt)).await;
}
