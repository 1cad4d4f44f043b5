//! `move`, when all goes well.

use std::time::Duration;

use crate::fixture::{Fixture, message};

#[tokio::test]
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

#[tokio::test]
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
