//! Documents that another program wrote or changed.

use mongodb::bson::{Bson, doc, oid::ObjectId};
use queue_api::{DeadLetter, DeadReason, PageOptions, QueueAdmin, Redrive};

use crate::fixture::{Fixture, MINUTE, applied, ids, lease, message, name};

tests! {
    on_one_thread:
        damaged_documents_become_dead_letters_and_the_others_are_delivered,
        numbers_of_other_types_are_read
}

async fn damaged_documents_become_dead_letters_and_the_others_are_delivered() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    let fields = [
        "birth",
        "payload",
        "headers",
        "enqueued_at",
        "visibility",
        "max_attempts",
        "attempts",
    ];
    for field in fields {
        for (kind, update) in [
            ("missing", doc! { "$unset": { field: "" } }),
            ("mistyped", doc! { "$set": { field: { "not": ["this"] } } }),
            ("negative", doc! { "$set": { field: -1 } }),
        ] {
            let id = format!("{field} {kind}");
            queue.enqueue(&message(&id)).await.unwrap();
            fixture.change_document(&id, update).await;
        }
    }
    insert_foreign_documents(&fixture).await;
    queue.enqueue(&message("intact")).await.unwrap();

    let damaged = 3 * fields.len() as u64 + 5;
    assert_eq!(queue.stats().await.unwrap().ready, damaged + 1);
    assert_eq!(fixture.backend.peek(&name(), 100).await.unwrap().len(), 1);
    assert_eq!(ids(&lease(&queue, 1).await), ["intact"]);
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.ready, stats.dead), (0, damaged));

    let letters = listed_one_by_one(&fixture).await;
    assert_eq!(letters.len() as u64, damaged);
    for letter in &letters {
        let DeadReason::Rejected(reason) = &letter.reason else {
            panic!("{letter:?}");
        };
        assert!(reason.starts_with("damaged: "), "{letter:?}");
    }
    let letter = letters
        .iter()
        .find(|letter| letter.id.as_str() == "attempts missing");
    assert_eq!(
        letter.expect("listed").payload,
        "payload of attempts missing"
    );

    // A redrive of all ends, though the next lease call finds them damaged again.
    assert_eq!(
        fixture
            .backend
            .redrive(&name(), &Redrive::All)
            .await
            .unwrap(),
        damaged
    );
    // A redrive sets the number of attempts, and so repairs these three.
    assert_eq!(lease(&queue, 100).await.len(), 3);
    assert_eq!(queue.stats().await.unwrap().dead, damaged - 3);
}

/// Documents of another program. Claims find five of them.
async fn insert_foreign_documents(fixture: &Fixture) {
    for foreign in [
        doc! { "_id": 7, "visible_at": mongodb::bson::DateTime::from_millis(1) },
        doc! { "_id": ObjectId::new(), "visible_at": mongodb::bson::DateTime::from_millis(1) },
        doc! { "_id": { "strange": "id" }, "visible_at": mongodb::bson::DateTime::from_millis(1) },
        doc! { "_id": "x".repeat(300), "visible_at": [mongodb::bson::DateTime::from_millis(1)] },
        doc! { "_id": "", "visible_at": mongodb::bson::DateTime::from_millis(1) },
        // No claim finds these.
        doc! { "_id": "no time" },
        doc! { "_id": "wrong time", "visible_at": "tomorrow" },
        doc! { "_id": "half dead", "dead": true },
    ] {
        fixture.documents().insert_one(foreign).await.unwrap();
    }
}

/// All dead letters, in pages of one. The pages must end.
async fn listed_one_by_one(fixture: &Fixture) -> Vec<DeadLetter> {
    let mut page = PageOptions::new(1);
    let mut letters = Vec::new();
    loop {
        let mut listed = fixture.backend.dead_letters(&name(), &page).await.unwrap();
        letters.append(&mut listed.letters);
        let Some(token) = listed.next else {
            return letters;
        };
        page = PageOptions::new(1).with_token(token);
    }
}

async fn numbers_of_other_types_are_read() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue();
    queue
        .enqueue(&message("a").with_max_attempts(2))
        .await
        .unwrap();
    // An old shell turns every number into a double.
    let doubles = doc! { "attempts": 0.0, "max_attempts": 2.0, "visibility": 1000 };
    fixture.change_document("a", doc! { "$set": doubles }).await;
    let delivery = queue.lease().await.unwrap().expect("still readable");
    assert_eq!(delivery.attempt, 1);
    applied(queue.dead_letter(&delivery.receipt, "no")).await;
    for reason in [Bson::Int32(5), Bson::Null] {
        fixture
            .change_document("a", doc! { "$set": { "dead.reason": reason } })
            .await;
        let page = PageOptions::new(9);
        let letters = fixture.backend.dead_letters(&name(), &page).await.unwrap();
        assert_eq!(
            letters[0].reason,
            DeadReason::Rejected("damaged: reason".into())
        );
    }
    fixture.clock.advance(MINUTE);
    assert!(lease(&queue, 1).await.is_empty());
}
