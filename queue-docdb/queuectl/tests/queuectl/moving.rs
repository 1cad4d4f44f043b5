//! `move`, when all goes well.

use std::time::Duration;

use crate::fixture::{Fixture, message};

tests! {
    a_moved_message_is_the_same,
    a_limit_and_duplicates_are_counted,
    a_message_that_is_there_already_is_removed_from_the_first_queue,
    a_failed_enqueue_says_that_a_repeat_is_needed,
}

async fn a_moved_message_is_the_same() {
    let fixture = Fixture::new().await;
    let odd = message("odd")
        .with_header("kind", "fax")
        .with_visibility_timeout(Duration::from_secs(77))
        .with_max_attempts(4);
    fixture.queue("from").enqueue(&odd).await.expect("stored");
    let late = message("late").with_delay(Duration::from_secs(3600));
    fixture.queue("from").enqueue(&late).await.expect("stored");

    fixture
        .run(&["move", "from", "to"])
        .fails(3, &["no queue to"]);
    let moved = fixture
        .json("moved", &["move", "from", "to", "--create"])
        .remove(0);
    assert_eq!(
        (&moved["moved"], &moved["duplicates"]),
        (&1.into(), &0.into())
    );
    let delivery = fixture
        .queue("to")
        .lease()
        .await
        .expect("leased")
        .expect("ready");
    assert_eq!(
        (
            delivery.id.as_str(),
            delivery.attempt,
            delivery.max_attempts
        ),
        ("odd", 1, 4)
    );
    assert_eq!(delivery.visibility_timeout, Duration::from_secs(77));
    assert_eq!(delivery.headers["kind"], "fax");
    assert_eq!(
        fixture.admin().stats("from").await.expect("stats").delayed,
        1
    );
}

async fn a_limit_and_duplicates_are_counted() {
    let fixture = Fixture::new().await;
    let names: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    fixture.store("from", &names).await;
    fixture.store("to", &names[..10]).await;
    let moved = |args: &[&str]| {
        let row = fixture
            .json("moved", &[&["move", "from", "to"], args].concat())
            .remove(0);
        ["moved", "duplicates", "lost"].map(|name| row[name].as_u64().expect("a count"))
    };
    assert_eq!(moved(&["--max=30"])[0], 30);
    assert_eq!(moved(&[])[0], 20);
    assert_eq!(moved(&[]), [0, 0, 0]);
    let stats = fixture.admin().stats("to").await.expect("stats");
    assert_eq!(stats.ready, 50);
    let said = fixture.run(&["move", "to", "from"]).succeeds().out;
    assert_eq!(said, "moved 50 messages from queue to into queue from\n");
    fixture.run(&["move", "to", "to"]).fails(2, &["the same"]);
    fixture
        .run(&["move", "form", "to"])
        .fails(3, &["did you mean from?"]);
}

async fn a_message_that_is_there_already_is_removed_from_the_first_queue() {
    let fixture = Fixture::new().await;
    fixture.store_dead("to", message("dead"), "broken").await;
    fixture.store("to", &["ready"]).await;
    fixture.store("from", &["dead", "ready", "new"]).await;
    let said = fixture.run(&["move", "from", "to"]).succeeds().out;
    let removed = "; 2 of them were there already, by their ids, and are removed from queue from";
    assert!(said.contains(removed), "{said}");
    let stats = async |queue| fixture.admin().stats(queue).await.expect("stats");
    let (from, to) = (stats("from").await, stats("to").await);
    assert_eq!((from.ready, from.dead), (0, 0));
    assert_eq!((to.ready, to.dead), (2, 1));
}

async fn a_failed_enqueue_says_that_a_repeat_is_needed() {
    let fixture = Fixture::new().await;
    fixture.store("from", &["a", "b"]).await;
    let other = fixture.backend.client().database(fixture.database.name());
    let other = other.collection("queue.to");
    let own = queue_docdb::mongodb::bson::doc! { "name": "another program's" };
    other.insert_one(own).await.expect("stored");
    fixture.run(&["move", "from", "to", "--create"]).fails(
        2,
        &["some messages may be in both queues until you repeat the command"],
    );
    let stats = fixture.admin().stats("from").await.expect("stats");
    assert_eq!(stats.ready, 2, "their leases are released");
}
