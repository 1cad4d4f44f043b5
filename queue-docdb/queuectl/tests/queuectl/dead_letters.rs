//! `dead`.

use std::{process::Stdio, time::Duration};

use queue_api::NewMessage;
use serde_json::Value;

use crate::fixture::{Done, Fixture, message};

tests! {
    list_filters_and_orders,
    show_has_everything,
    redrive_takes_ids_filters_or_all,
    filters_reach_every_page,
    a_redrive_ends_although_all_die_again,
    remove_is_for_all_and_asks,
}

/// Three dead letters, in this order of death.
async fn three_dead(fixture: &Fixture) {
    for (id, reason, kind) in [
        ("a", "no recipient", "mail"),
        ("b", "timeout", "mail"),
        ("c", "no recipient", "fax"),
    ] {
        let message = message(id).with_header("kind", kind);
        fixture.store_dead("mail", message, reason).await;
    }
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter()
        .map(|row| row["id"].as_str().expect("an id"))
        .collect()
}

async fn list_filters_and_orders() {
    let fixture = Fixture::new().await;
    three_dead(&fixture).await;
    let list = |args: &[&str]| {
        let rows = fixture.json("message", &[&["dead", "list", "mail"], args].concat());
        ids(&rows).join("")
    };
    assert_eq!(list(&[]), "abc");
    assert_eq!(list(&["--order=newest"]), "cba");
    assert_eq!(list(&["--limit=2"]), "ab");
    assert_eq!(list(&["--limit=1", "--order=newest"]), "c");
    assert_eq!(list(&["--reason", "recipient"]), "ac");
    assert_eq!(list(&["--header", "kind=mail"]), "ab");
    assert_eq!(list(&["--header", "kind=mail", "--reason", "time"]), "b");
    assert_eq!(list(&["--older-than=1h"]), "");
    assert_eq!(list(&["--newer-than=1h"]), "abc");
    fixture
        .run(&["dead", "list", "mail", "--header=kind"])
        .fails(2, &["NAME=VALUE"]);
    fixture
        .run(&["dead", "list", "mial"])
        .fails(3, &["did you mean mail?"]);

    let listed = fixture.run(&["dead", "list", "mail"]).succeeds();
    assert_eq!(listed.err, "3 of 3 dead letters\n");
    let table = listed.out;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[2].contains("timeout"), "{table}");
    let empty = fixture.run(&["dead", "list", "mail", "--reason=Timeout"]);
    let empty = empty.succeeds();
    assert_eq!(empty.out.lines().count(), 1, "{}", empty.out);
    assert_eq!(empty.err, "0 of 3 dead letters match; case matters\n");
}

async fn show_has_everything() {
    let fixture = Fixture::new().await;
    let letter = message("a")
        .with_header("kind", "fax")
        .with_payload("line 1\nline \x1b2");
    fixture.store_dead("mail", letter, "first\nsecond").await;
    let rows = fixture.json("message", &["dead", "show", "mail", "a"]);
    assert_eq!(
        (&rows[0]["reason"], &rows[0]["attempts"]),
        (&"first\nsecond".into(), &1.into())
    );
    assert_eq!(rows[0]["payload"], "line 1\nline \x1b2");
    let text = fixture.run(&["dead", "show", "mail", "a"]).succeeds().out;
    for part in [
        "id: a",
        "reason: first\nsecond",
        "header kind: fax",
        "payload: line 1\nline \\u{1b}2",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    fixture
        .run(&["dead", "show", "mail", "a", "zz"])
        .fails(3, &["not dead letters of mail: zz"]);
}

async fn redrive_takes_ids_filters_or_all() {
    let fixture = Fixture::new().await;
    three_dead(&fixture).await;
    let redrive = |args: &[&str]| {
        let rows = fixture.json("redriven", &[&["dead", "redrive", "mail"], args].concat());
        rows[0]["redriven"].as_u64().expect("a count")
    };
    let run = |args: &[&str]| fixture.run(&[&["dead", "redrive", "mail"], args].concat());
    run(&[]).fails(
        2,
        &["no dead letters are named; name ids, a filter, --limit or --all"],
    );
    run(&["a", "--all"]).fails(2, &["cannot be used with"]);
    run(&["a", "--order=newest"]).fails(2, &["cannot be used with"]);
    run(&["--all", "--order=newest"]).fails(2, &["cannot be used with"]);
    run(&["a", "--reason=x"]).fails(2, &["cannot be used with"]);
    assert_eq!(
        redrive(&["--reason=recipient", "--limit=1", "--order=newest"]),
        1
    );
    let ready = fixture.admin().peek("mail", 10).await.expect("a look");
    assert_eq!(
        (ready.len(), ready[0].id.as_str(), ready[0].attempts),
        (1, "c", 0)
    );
    assert_eq!(redrive(&["a", "a"]), 1);
    run(&["a", "b"]).fails(3, &["not dead letters of mail: a"]);
    assert_eq!(fixture.admin().stats("mail").await.expect("stats").ready, 3);
    fixture.store_dead("other", message("x"), "broken").await;
    let all = ["dead", "redrive", "other", "--all"];
    let asked = fixture.run(&all);
    asked.fails(6, &["would redrive 1 dead letter of queue other", "--yes"]);
    let done = fixture.json("redriven", &[&all[..], &["--yes"]].concat());
    assert_eq!(done[0]["redriven"], 1);
}

async fn filters_reach_every_page() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue("mail");
    let messages: Vec<_> = (0..2500)
        .map(|n| message(&n.to_string()).with_max_attempts(1))
        .collect();
    queue.enqueue_batch(&messages).await.expect("stored");
    let options = queue_api::LeaseOptions::new(2500).with_visibility_timeout(Duration::ZERO);
    assert_eq!(
        queue.lease_batch(&options).await.expect("leased").len(),
        1000
    );
    let rest = options.with_max_messages(3000);
    while !queue.lease_batch(&rest).await.expect("leased").is_empty() {}
    assert_eq!(queue.stats().await.expect("stats").dead, 2500);
    let rows = fixture.json(
        "message",
        &["dead", "list", "mail", "--order=newest", "--limit=7"],
    );
    assert_eq!(rows.len(), 7);
    let args = ["dead", "redrive", "mail", "--reason=attempts exhausted"];
    assert_eq!(fixture.json("redriven", &args)[0]["redriven"], 2500);
    assert_eq!(queue.stats().await.expect("stats").ready, 2500);
}

/// A consumer makes each message a dead letter again, as soon as it is redriven.
async fn a_redrive_ends_although_all_die_again() {
    let fixture = Fixture::new().await;
    let queue = fixture.queue("mail");
    let messages: Vec<_> = (0..1500).map(|n| message(&n.to_string())).collect();
    queue.enqueue_batch(&messages).await.expect("stored");
    let kill = async || loop {
        let options = queue_api::LeaseOptions::new(1000);
        let deliveries = queue.lease_batch(&options).await.expect("leased");
        let dead = |delivery: &queue_api::Delivery| {
            queue_api::LeaseChange::dead_letter(delivery.receipt.clone(), "again")
        };
        let changes: Vec<_> = deliveries.iter().map(dead).collect();
        queue.change_batch(&changes).await.expect("changed");
        if deliveries.is_empty() {
            break;
        }
    };
    kill().await;
    let args = ["--output=json", "dead", "redrive", "mail", "--reason=again"];
    let mut command = fixture.command(&args);
    let mut program = command.stdout(Stdio::piped()).spawn().expect("it starts");
    while program.try_wait().expect("a look").is_none() {
        kill().await;
    }
    let done = Done::from(program.wait_with_output().expect("it ends")).succeeds();
    assert_eq!(done.json("redriven")[0]["redriven"], 1500);
}

async fn remove_is_for_all_and_asks() {
    let fixture = Fixture::new().await;
    three_dead(&fixture).await;
    fixture
        .queue("mail")
        .enqueue(&NewMessage::new("live"))
        .await
        .expect("stored");
    fixture
        .run(&["dead", "remove", "mail"])
        .fails(2, &["queuectl dead remove [OPTIONS] --all <QUEUE>"]);
    for other in ["a", "--reason=timeout"] {
        let refused = fixture.run(&["dead", "remove", "mail", "--all", other, "--yes"]);
        refused.fails(2, &["only --all is possible", other, "no call"]);
    }
    let asked = fixture.run(&["dead", "remove", "mail", "--all"]);
    asked.fails(6, &["would remove 3 dead letters of queue mail"]);
    let removed = fixture.json("removed", &["dead", "remove", "mail", "--all", "--yes"]);
    assert_eq!(removed[0]["removed"], 3);
    assert_eq!(fixture.admin().stats("mail").await.expect("stats").ready, 1);
    let help = fixture.run(&["dead", "remove", "--help"]).succeeds().out;
    assert!(help.contains("no call that removes single ones"), "{help}");
}
