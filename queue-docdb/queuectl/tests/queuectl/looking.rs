//! `queues`, `stats` and `peek`.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use queue_api::NewMessage;

use crate::fixture::{Done, Fixture, message};

tests! {
    queues_shows_each_state,
    a_queue_that_fills_has_a_change,
    peek_shows_messages_and_leases_none,
    a_table_obeys_no_payload,
    a_queue_that_does_not_exist_is_an_error_with_the_nearest,
    a_closed_output_is_no_error_text,
}

async fn queues_shows_each_state() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a", "b"]).await;
    let late = message("late").with_delay(Duration::from_secs(3600));
    fixture.queue("mail").enqueue(&late).await.expect("stored");
    fixture.queue("mail").lease().await.expect("leased");
    fixture.store_dead("old", message("x"), "broken").await;

    let rows = fixture.json("queue", &["queues", "--interval", "100ms"]);
    assert_eq!(rows.len(), 2);
    let counts = |row: &serde_json::Value| {
        ["ready", "delayed", "leased", "dead"].map(|state| row[state].as_u64().expect("a count"))
    };
    assert_eq!(
        (&rows[0]["queue"], counts(&rows[0])),
        (&"mail".into(), [1, 1, 1, 0])
    );
    assert_eq!(
        (&rows[1]["queue"], counts(&rows[1])),
        (&"old".into(), [0, 0, 0, 1])
    );
    assert_eq!(rows[0]["depth_change_per_second"], 0.0);
    assert!(rows[0]["oldest_ready_seconds"].is_number());
    assert!(rows[1]["oldest_ready_seconds"].is_null());

    let table = fixture.run(&["queues", "--interval", "0s"]).succeeds().out;
    let lines: Vec<Vec<_>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0][..2], ["QUEUE", "READY"], "{table}");
    assert_eq!(lines[1][..5], ["mail", "1", "1", "1", "0"], "{table}");
    assert_eq!(lines[2], ["old", "0", "0", "0", "1", "-", "-"], "{table}");
    assert!(!table.contains('\x1b'), "{table}");
}

async fn a_queue_that_fills_has_a_change() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let mut command = fixture.command(&["--output=json", "stats", "mail", "--watch=50ms"]);
    let mut program = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(program.stdout.take().expect("a pipe")).lines();
    let mut next = || -> serde_json::Value {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    assert!(next()["depth_change_per_second"].is_null());
    fixture.store("mail", &["b", "c"]).await;
    loop {
        let row = next();
        if row["ready"] == 3 {
            let change = row["depth_change_per_second"].as_f64().expect("a change");
            assert!(change > 0.0, "{row}");
            break;
        }
    }
    program.kill().expect("killed");
    program.wait().expect("ended");
}

async fn peek_shows_messages_and_leases_none() {
    let fixture = Fixture::new().await;
    let binary = NewMessage::new([0xff, 0x00].as_slice()).with_header("kind", "raw");
    fixture
        .queue("mail")
        .enqueue(&binary)
        .await
        .expect("stored");
    let rows = fixture.json("message", &["peek", "mail"]);
    assert_eq!(rows[0]["payload_base64"], "/wA=");
    assert_eq!(rows[0]["headers"]["kind"], "raw");
    assert_eq!(
        (&rows[0]["state"], &rows[0]["attempts"]),
        (&"ready".into(), &0.into())
    );
}

async fn a_table_obeys_no_payload() {
    let fixture = Fixture::new().await;
    let hostile = NewMessage::new("red \x1b[31m\nnext line");
    fixture
        .queue("mail")
        .enqueue(&hostile)
        .await
        .expect("stored");
    let table = fixture.run(&["peek", "mail"]).succeeds().out;
    assert!(table.contains(r"red \u{1b}[31m\nnext line"), "{table}");
    assert!(!table.contains('\x1b'), "{table}");
}

async fn a_queue_that_does_not_exist_is_an_error_with_the_nearest() {
    let fixture = Fixture::new().await;
    fixture
        .run(&["stats", "mail"])
        .fails(3, &["there is no queue mail", "there are no queues"]);
    fixture.store("mail", &["a"]).await;
    fixture.store("reports", &["a"]).await;
    for args in [
        &["stats", "mial"][..],
        &["peek", "mial"],
        &["purge", "mial", "--yes"],
        &["delete", "mial", "--yes"],
    ] {
        fixture.run(args).fails(
            3,
            &[
                "no queue mial",
                fixture.database.name(),
                "did you mean mail?",
            ],
        );
    }
    fixture
        .run(&["peek", "mail", "--max=0"])
        .fails(2, &["max is 0", "1 to 1000"]);
    fixture
        .run(&["peek", "zzz"])
        .fails(3, &["`queuectl queues` lists the 2"]);
    // An empty one exists.
    fixture.json("removed", &["purge", "mail", "--yes"]);
    assert_eq!(fixture.json("queue", &["stats", "mail"])[0]["ready"], 0);
    assert!(fixture.json("message", &["peek", "mail"]).is_empty());
}

async fn a_closed_output_is_no_error_text() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let done = Done::of(fixture.command(&["peek", "mail"]).stdout(writer));
    assert_eq!((done.code, done.err.as_str()), (1, ""));
}
