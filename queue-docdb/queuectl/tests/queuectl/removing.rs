//! `purge` and `delete`, and the question before them.

use queue_api::MessageState;

use crate::fixture::{Fixture, message};

tests! {
    purge_removes_what_it_is_told,
    nothing_is_destroyed_without_an_answer,
    delete_removes_the_queue,
}

async fn purge_removes_what_it_is_told() {
    let fixture = Fixture::new().await;
    fixture.store_dead("mail", message("x"), "broken").await;
    fixture.store("mail", &["a", "b"]).await;
    let removed = |args: &[&str]| fixture.json("removed", args)[0]["removed"].clone();
    assert_eq!(removed(&["purge", "mail", "--yes"]), 2);
    assert_eq!(fixture.admin().stats("mail").await.expect("stats").dead, 1);
    assert_eq!(removed(&["purge", "mail", "--what", "dead", "--yes"]), 1);
    fixture.store_dead("mail", message("y"), "broken").await;
    fixture.store("mail", &["c"]).await;
    assert_eq!(removed(&["purge", "mail", "--what=all", "-y"]), 2);
    let said = fixture.run(&["purge", "mail", "--what=dead", "--yes"]);
    assert_eq!(
        said.succeeds().out,
        "removed 0 dead letters of queue mail\n"
    );
    let said = fixture.run(&["purge", "mail", "--yes"]).succeeds().out;
    assert_eq!(said, "removed 0 messages of queue mail\n");
}

async fn nothing_is_destroyed_without_an_answer() {
    let fixture = Fixture::new().await;
    fixture.store_dead("mail", message("x"), "broken").await;
    fixture.store("mail", &["a", "b"]).await;
    let purged = fixture.run(&["purge", "mail"]);
    purged.fails(6, &["would remove 2 live messages of queue mail", "--yes"]);
    let deleted = fixture.run(&["delete", "mail"]);
    deleted.fails(
        6,
        &[
            "would delete queue mail with 2 live messages and 1 dead letter",
            "--yes",
        ],
    );
    let left = fixture.admin().peek("mail", 10).await.expect("a look");
    assert_eq!(left.len(), 2);
    assert!(
        left.iter()
            .all(|message| message.state == MessageState::Ready)
    );
}

async fn delete_removes_the_queue() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    fixture.json("deleted", &["delete", "mail", "--yes"]);
    assert_eq!(fixture.admin().list_queues().await.expect("a list"), []);
    fixture
        .run(&["delete", "mail", "--yes"])
        .fails(3, &["no queue mail"]);
}
