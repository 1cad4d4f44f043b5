//! `enqueue`, and what it refuses.

use std::{io::Write, process::Stdio};

use queue_api::PeekedMessage;
use serde_json::Value;

use crate::fixture::{Done, Fixture};

tests! {
    a_message_is_a_line_a_file_or_an_object,
    a_repeat_stores_nothing_twice,
    derived_ids_never_change,
    a_new_queue_needs_a_flag,
    input_that_is_wrong_has_its_line,
    the_largest_message_passes,
}

impl Fixture {
    async fn messages(&self, queue: &str) -> Vec<PeekedMessage> {
        self.admin().peek(queue, 1000).await.expect("a look")
    }

    async fn payloads(&self, queue: &str) -> Vec<String> {
        let text = |message: PeekedMessage| String::from_utf8_lossy(&message.payload).into_owned();
        let mut payloads: Vec<_> = self.messages(queue).await.into_iter().map(text).collect();
        payloads.sort();
        payloads
    }

    fn enqueue(&self, args: &[&str]) -> Value {
        self.json("enqueued", &[&["enqueue"], args].concat())
            .remove(0)
    }

    /// Runs the program with this standard input.
    fn pipe(&self, args: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(args);
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut program = piped.spawn().expect("it starts");
        program
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input)
            .expect("written");
        let done = Done::from(program.wait_with_output().expect("it ends"));
        done.has_no_secret();
        done
    }
}

fn counts(row: &Value) -> [u64; 3] {
    ["stored", "duplicates", "position"].map(|name| row[name].as_u64().expect("a count"))
}

async fn a_message_is_a_line_a_file_or_an_object() {
    let fixture = Fixture::new().await;
    fixture.folder_file("lines", b"one\r\ntwo\n\n\xff\xfe");
    fixture.folder_file("files", "all of\nit");
    fixture.folder_file(
        "json",
        "{\"id\":\"a\",\"payload\":\"x\",\"headers\":{\"k\":\"own\"},\"delay\":\"1h\"}\n\n\
         {\"payload_base64\":\"/wA=\"}\n",
    );
    assert_eq!(
        counts(&fixture.enqueue(&["lines", "--create", "lines"])),
        [4, 0, 4]
    );
    let lines = fixture.payloads("lines").await;
    assert_eq!(lines, ["", "one", "two", "\u{fffd}\u{fffd}"]);

    fixture.enqueue(&["files", "--create", "--format=files", "files", "lines"]);
    assert_eq!(fixture.payloads("files").await[0], "all of\nit");

    let args = [
        "json",
        "--create",
        "--format=json",
        "json",
        "--header=k=other",
        "--header=l=1",
        "--max-attempts=3",
        "--visibility-timeout=90s",
    ];
    assert_eq!(counts(&fixture.enqueue(&args)), [2, 0, 2]);
    let messages = fixture.messages("json").await;
    let delayed = messages
        .iter()
        .find(|it| it.id.as_str() == "a")
        .expect("the message");
    assert_eq!(delayed.state, queue_api::MessageState::Delayed);
    assert_eq!(
        (&*delayed.headers["k"], &*delayed.headers["l"]),
        ("own", "1")
    );
    let other = messages
        .iter()
        .find(|it| it.id.as_str() != "a")
        .expect("the message");
    assert_eq!(
        (&*other.payload, &*other.headers["k"]),
        (&[0xff, 0][..], "other")
    );
    let delivery = fixture
        .queue("json")
        .lease()
        .await
        .expect("leased")
        .expect("ready");
    assert_eq!(
        (delivery.max_attempts, delivery.visibility_timeout.as_secs()),
        (3, 90)
    );
}

async fn a_repeat_stores_nothing_twice() {
    let fixture = Fixture::new().await;
    fixture.folder_file("a", "same\nsame\n");
    fixture.folder_file("b", "same\n");
    assert_eq!(
        counts(&fixture.enqueue(&["q", "--create", "a", "b"])),
        [3, 0, 3]
    );
    assert_eq!(counts(&fixture.enqueue(&["q", "a", "b"])), [0, 3, 3]);
    assert_eq!(
        counts(&fixture.enqueue(&["q", "a", "--label=c"])),
        [2, 0, 2]
    );
    assert_eq!(
        counts(&fixture.enqueue(&["q", "b", "--new-ids"])),
        [1, 0, 1]
    );
    assert_eq!(
        counts(&fixture.enqueue(&["q", "a", "b", "--skip=2"])),
        [0, 1, 3]
    );
    let far = fixture.run(&["enqueue", "q", "a", "b", "--skip=9"]);
    far.fails(7, &["--skip is 9, but the input has only 3 messages"]);
    let said = fixture.pipe(&["enqueue", "q"], b"x").succeeds().out;
    assert_eq!(said, "enqueued 1 message into queue q\n");
    let said = fixture.pipe(&["enqueue", "q", "-"], b"x").succeeds().out;
    assert!(
        said.contains("1 more were there already") && said.contains("--new-ids"),
        "{said}"
    );
    fixture
        .run(&["enqueue", "q", "a", "b", "--label=c"])
        .fails(2, &["--label"]);
    // A repeat that corrects a flag is not dropped.
    for flag in [
        "--delay=1h",
        "--visibility-timeout=1m",
        "--header=k=v",
        "--max-attempts=3",
    ] {
        assert_eq!(counts(&fixture.enqueue(&["q", "b", flag])), [1, 0, 1]);
        assert_eq!(counts(&fixture.enqueue(&["q", "b", flag])), [0, 1, 1]);
    }
    fixture.folder_file("in.jsonl", "{\"payload\":\"x\"}\n");
    let question = "in.jsonl looks like JSON lines: name --format lines or --format json";
    fixture
        .run(&["enqueue", "q", "in.jsonl"])
        .fails(2, &[question]);
    for format in ["--format=lines", "--format=json"] {
        assert_eq!(
            counts(&fixture.enqueue(&["q", "in.jsonl", format])),
            [1, 0, 1]
        );
    }
}

/// Ids are a promise: an input that was enqueued by an older version is found again.
async fn derived_ids_never_change() {
    let fixture = Fixture::new().await;
    fixture
        .pipe(&["enqueue", "q", "--create", "--label=orders"], b"first\n")
        .succeeds();
    let messages = fixture.messages("q").await;
    assert_eq!(
        messages[0].id.as_str(),
        "e5f3ed63-4e58-5a5d-a2d0-e3e647defe7c"
    );
}

async fn a_new_queue_needs_a_flag() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    fixture.folder_file("a", "x");
    fixture
        .run(&["enqueue", "mial", "a"])
        .fails(3, &["did you mean mail?", "--create"]);
    assert_eq!(
        fixture.admin().list_queues().await.expect("a list").len(),
        1
    );
}

async fn input_that_is_wrong_has_its_line() {
    let fixture = Fixture::new().await;
    fixture.store("q", &["there"]).await;
    let json = |content: &[u8]| {
        fixture.folder_file("in", content);
        fixture.run(&["enqueue", "q", "in", "--format=json"])
    };
    let good = "{\"id\":\"good\",\"payload\":\"x\"}\n";
    let after_good = |line: &[u8]| json(&[good.as_bytes(), line].concat());
    after_good(b"{\"payload\":").fails(7, &["in, line 2: column 11: EOF", "resume with --skip 1"]);
    assert_eq!(
        fixture.payloads("q").await,
        ["there", "x"],
        "what came before is stored"
    );
    after_good(b"{\"payload\":\"\xff\"}").fails(7, &["line 2: byte 13 is not UTF-8"]);
    after_good(b"{\"body\":\"x\"}").fails(7, &["unknown field `body`", "`payload`"]);
    after_good(b"{\"id\":\"x\"}").fails(7, &["neither payload nor payload_base64"]);
    after_good(b"{\"payload\":\"\",\"payload_base64\":\"\"}").fails(7, &["both"]);
    after_good(b"{\"payload_base64\":\"!\"}").fails(7, &["payload_base64"]);
    after_good(b"{\"payload\":\"\",\"delay\":\"soon\"}").fails(7, &["line 2", "soon"]);
    after_good(b"{\"payload\":\"\",\"id\":\"\"}").fails(7, &["is not a message id"]);
    after_good(b"{\"payload\":\"\",\"max_attempts\":0}").fails(7, &["max_attempts is 0"]);
    after_good(b"{\"payload\":\"\",\"delay\":\"9999h\"}").fails(7, &["delay is", "at most"]);
    let dead = b"{\"payload\":\"\",\"state\":\"dead\"}";
    after_good(dead).fails(7, &["line 2: it is a dead letter", "--dead=enqueue"]);
    after_good(b"[1]").fails(7, &["line 2", "invalid"]);

    let most = queue_api::Limits::STANDARD.max_payload_bytes;
    fixture.folder_file("large", "x".repeat(most + 1));
    let too_long = format!("longer than {most} bytes");
    fixture
        .run(&["enqueue", "q", "large"])
        .fails(7, &["large, line 1", &too_long]);
    // The line is longer than two others together. Its end is not a message.
    let content = format!("{}\nlast\n", "x".repeat(2 * most + 10));
    fixture.folder_file("long", content);
    fixture
        .run(&["enqueue", "q", "long"])
        .fails(7, &["long, line 1", &too_long]);
    let skipped = fixture.enqueue(&["skipped", "--create", "long", "--skip=1"]);
    assert_eq!(counts(&skipped), [1, 0, 2]);
    assert_eq!(fixture.payloads("skipped").await, ["last"]);
    fixture
        .run(&["enqueue", "q", "large", "--format=files"])
        .fails(7, &["large: it is", &too_long]);
    fixture
        .run(&["enqueue", "q", "in", "none"])
        .fails(7, &["cannot read none", "No such file"]);
    fixture
        .run(&["enqueue", "q", "."])
        .fails(7, &["it is a folder"]);
    fixture
        .run(&["enqueue", "q", "in", "--header=x"])
        .fails(2, &["NAME=VALUE"]);
    fixture
        .run(&["enqueue", "q", "in", "--delay=1"])
        .fails(2, &["not a duration"]);
    // Not the input is wrong, but the flag.
    for (flag, name) in [
        ("--delay=9999h", "delay is"),
        ("--visibility-timeout=9999h", "visibility timeout is"),
    ] {
        let refused = fixture.run(&["enqueue", "q", "in", flag]);
        refused.fails(2, &[name, "must be at most"]);
    }
    assert_eq!(fixture.payloads("q").await, ["there", "x"]);
}

async fn the_largest_message_passes() {
    let fixture = Fixture::new().await;
    let most = queue_api::Limits::STANDARD.max_payload_bytes;
    fixture.folder_file("large", format!("{}\nsmall\n", "x".repeat(most)));
    assert_eq!(
        counts(&fixture.enqueue(&["q", "--create", "large"])),
        [2, 0, 2]
    );
    assert_eq!(fixture.admin().stats("q").await.expect("stats").ready, 2);
}
