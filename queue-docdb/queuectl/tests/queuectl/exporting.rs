//! `export`, and that `import` brings back the same messages.

use std::{fs, time::Duration};

use queue_api::{NewMessage, PeekedMessage};

use crate::fixture::{Done, Fixture, message, validator};

tests! {
    an_import_has_what_was_exported,
    what_was_ready_is_ready,
    dead_letters_are_exported_and_imported_on_demand,
    an_output_is_not_overwritten_by_chance,
    an_export_without_room_says_how_to_go_on,
    a_closed_output_ends_the_export,
}

/// What an import keeps.
fn kept(message: &PeekedMessage) -> impl PartialEq + std::fmt::Debug + use<> {
    let PeekedMessage {
        id,
        payload,
        headers,
        max_attempts,
        visibility_timeout,
        state,
        ..
    } = message.clone();
    (
        id,
        payload,
        headers,
        max_attempts,
        visibility_timeout,
        state,
    )
}

async fn all(fixture: &Fixture, queue: &str) -> Vec<PeekedMessage> {
    let mut stream = fixture.admin().all_messages(queue).expect("a list");
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        messages.push(message.expect("a message"));
    }
    messages.sort_by(|a, b| a.id.cmp(&b.id));
    messages
}

async fn an_import_has_what_was_exported() {
    let fixture = Fixture::new().await;
    let from = fixture.queue("from");
    let messages = [
        message("text")
            .with_header("kind", "fax")
            .with_max_attempts(3),
        message("bytes").with_payload([0xff, 0x0a, 0x00].as_slice()),
        message("empty")
            .with_payload("")
            .with_visibility_timeout(Duration::from_millis(1500)),
        message("late").with_delay(Duration::from_secs(3600)),
        NewMessage::new("two\nlines \u{1f600} \u{2028}"),
    ];
    from.enqueue_batch(&messages).await.expect("stored");
    let done = fixture.json("exported", &["export", "from", "file"]);
    assert_eq!(
        (&done[0]["exported"], &done[0]["file"]),
        (&5.into(), &"file".into())
    );
    assert!(!fixture.folder.path().join("file.part").exists());
    let text = fs::read_to_string(fixture.folder.path().join("file")).expect("the file");
    let schema = validator("message");
    for line in text.lines() {
        let record = serde_json::from_str(line).expect("JSON");
        assert!(schema.is_valid(&record), "{line}");
    }

    fixture.json("enqueued", &["import", "to", "--create", "file"]);
    let (before, after) = (all(&fixture, "from").await, all(&fixture, "to").await);
    let of = |messages: &[PeekedMessage]| messages.iter().map(kept).collect::<Vec<_>>();
    assert_eq!(of(&before), of(&after));
    let again = fixture.json("enqueued", &["import", "to", "file"]);
    assert_eq!(
        (&again[0]["stored"], &again[0]["duplicates"]),
        (&0.into(), &5.into())
    );
}

/// The clock of the machine that imports may be slow.
async fn what_was_ready_is_ready() {
    let fixture = Fixture::new().await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let line = |id: &str, state: &str| {
        format!(
            "{{\"id\":\"{id}\",\"payload\":\"x\",\"state\":\"{state}\",\"ready_at\":\"{soon}\"}}\n"
        )
    };
    let lines = ["ready", "delayed", "leased"].map(|state| line(state, state));
    fixture.folder_file("file", lines.concat());
    fixture.json("enqueued", &["import", "to", "--create", "file"]);
    let stats = fixture.admin().stats("to").await.expect("stats");
    assert_eq!((stats.ready, stats.delayed), (1, 2));
}

async fn dead_letters_are_exported_and_imported_on_demand() {
    let fixture = Fixture::new().await;
    fixture.store_dead("from", message("dead"), "broken").await;
    fixture.store("from", &["live"]).await;
    let lines = |what: &str| {
        let out = fixture
            .run(&["export", "from", "--what", what])
            .succeeds()
            .out;
        let ids = out.lines().map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            record["id"].as_str().expect("an id").to_owned()
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(lines("live"), ["live"]);
    assert_eq!(lines("dead"), ["dead"]);
    assert_eq!(lines("all"), ["live", "dead"]);

    fixture.json("exported", &["export", "from", "file", "--what=all"]);
    let import =
        |args: &[&str]| fixture.run(&[&["import", "to", "--create", "file"], args].concat());
    import(&[]).fails(7, &["file, line 2: it is a dead letter", "--dead"]);
    let skipped = import(&["--dead=skip"]).succeeds().out;
    assert!(skipped.contains("enqueued 0 messages"), "{skipped}");
    assert!(skipped.contains("left out 1 dead letter"), "{skipped}");
    assert!(
        import(&["--dead=enqueue"])
            .succeeds()
            .out
            .contains("enqueued 1 message ")
    );
    assert_eq!(fixture.admin().stats("to").await.expect("stats").ready, 2);
    fixture.folder_file("no-id", "{\"payload\":\"x\"}");
    fixture
        .run(&["import", "to", "no-id"])
        .fails(7, &["no-id, line 1: it has no id"]);
}

async fn an_output_is_not_overwritten_by_chance() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    fixture.store("other", &["b"]).await;
    let file = |name: &str, content: &str| fixture.folder_file(name, content);
    let export = |args: &[&str]| fixture.run(&[&["export"], args].concat());
    file("mine", "my own text");
    export(&["mail", "mine"]).fails(2, &["cannot export into mine", "it exists", "--force"]);
    file("bad.part", "{");
    export(&["mail", "bad"]).fails(2, &["bad.part is not valid"]);
    export(&["mail", "no/such/folder"]).fails(1, &["no/such/folder", "No such file"]);
    export(&["mail", "."]).fails(2, &[". is a folder"]);
    let standard = export(&["mail", "-"]).succeeds().out;
    assert_eq!(standard, export(&["mail"]).succeeds().out);
    export(&["mial", "x"]).fails(3, &["did you mean mail?"]);

    export(&["mail", "mine", "--force"]).succeeds();
    let text = fs::read_to_string(fixture.folder.path().join("mine")).expect("the file");
    assert_eq!(text.lines().count(), 1, "{text}");
    let database = fixture.database.name();
    let (_, hosts) = fixture.uri.split_once('@').expect("a user");
    let (hosts, _) = hosts.split_once('/').expect("an end");
    let part = serde_json::json!({
        "queue": "other",
        "place": format!("database {database} of {hosts} with prefix \"queue.\""),
        "what": "dead",
        "list": "dead",
        "token": null,
        "messages": 1,
        "bytes": 9,
    });
    file("part.part", &part.to_string());
    let other = "part of an export of queue other with --what dead";
    export(&["mail", "part", "--what=dead"]).fails(2, &[other]);
    // Both have read live messages, dead letters or neither so far.
    export(&["other", "part", "--what=all"]).fails(2, &[other]);
    export(&["other", "part", "--what=live"]).fails(2, &[other]);
    export(&["other", "part", "--what=dead"]).fails(2, &["it has 0 bytes", "9"]);
    export(&["other", "part", "--force"]).succeeds();
}

async fn an_export_without_room_says_how_to_go_on() {
    let fixture = Fixture::new().await;
    let large = "x".repeat(100_000);
    let message = NewMessage::new(large);
    fixture
        .queue("mail")
        .enqueue(&message)
        .await
        .expect("stored");
    // A file that grows beyond the limit is an error of the write, as on a full disk.
    let limited = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    let program = fixture.command(&["export", "mail", "file"]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", limited]).arg(program.get_program());
    shell
        .args(program.get_args())
        .current_dir(fixture.folder.path());
    for (name, value) in program.get_envs() {
        shell.env(name, value.expect("no variable is removed"));
    }
    Done::of(&mut shell).fails(1, &["cannot write file: ", "; repeat the command to go on"]);
    let done = fixture.json("exported", &["export", "mail", "file"]);
    assert_eq!(done[0]["exported"], 1);
}

async fn a_closed_output_ends_the_export() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let done = Done::of(fixture.command(&["export", "mail"]).stdout(writer));
    assert_eq!((done.code, done.err.as_str()), (1, ""));
}
