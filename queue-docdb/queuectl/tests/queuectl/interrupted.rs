//! Commands that are stopped in the middle, and gone on with. Nothing may be lost or there twice.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};

use queue_api::NewMessage;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::fixture::{Done, ESCAPED_SECRET, Fixture, SECRET, message, pause};

tests! {
    enqueue_stops_after_a_batch_and_goes_on,
    import_stops_after_a_batch_and_goes_on,
    enqueue_goes_on_after_the_database_was_away,
    a_failed_batch_with_new_ids_may_be_stored,
    enqueue_from_an_idle_pipe_stores_at_once_and_stops_at_once,
    move_loses_nothing_when_it_is_stopped_or_killed,
    export_goes_on_where_it_was_stopped_or_killed,
}

/// Starts the program with a standard input that stays open, so that it cannot end by itself.
fn start(fixture: &Fixture, args: &[&str]) -> Child {
    let mut command = fixture.command(args);
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    piped.spawn().expect("it starts")
}

/// The program may have ended, but not been waited for.
fn signal(program: &Child, signal: Signal) {
    kill_process(Pid::from_child(program), signal).expect("sent");
}

/// Waits until the queue has this many live messages.
async fn wait_for(fixture: &Fixture, queue: &str, count: u64) {
    while live(fixture, queue).await < count {
        pause().await;
    }
}

async fn live(fixture: &Fixture, queue: &str) -> u64 {
    let stats = fixture.admin().stats(queue).await.expect("stats");
    stats.ready + stats.delayed + stats.leased
}

/// The end of a program that was told to stop: its position, as JSON and in words.
fn stopped(program: Child, code: i32, name: &str) -> u64 {
    let done = Done::from(program.wait_with_output().expect("it ends"));
    done.has_no_secret();
    let position = done.json("enqueued")[0]["position"]
        .as_u64()
        .expect("a count");
    let skip = format!("--skip {position}");
    done.fails(code, &["stopped by", name, &skip]);
    position
}

/// The lines of an input.
fn lines(range: std::ops::Range<u64>, line: &impl Fn(u64) -> String) -> String {
    range.map(|n| line(n) + "\n").collect()
}

async fn enqueue_stops_after_a_batch_and_goes_on() {
    let line = |n| format!("message {n}");
    stop_and_go_on("enqueue", line, Signal::INT, 130, "SIGINT").await;
}

async fn import_stops_after_a_batch_and_goes_on() {
    let line = |n| format!("{{\"id\":\"{n}\",\"payload\":\"message {n}\"}}");
    stop_and_go_on("import", line, Signal::TERM, 143, "SIGTERM").await;
}

async fn stop_and_go_on(
    command: &str,
    line: impl Fn(u64) -> String,
    sent: Signal,
    code: i32,
    name: &str,
) {
    let fixture = Fixture::new().await;
    let mut program = start(&fixture, &[command, "q", "--create", "--output=json"]);
    let mut input = program.stdin.take().expect("a pipe");
    input
        .write_all(lines(0..5000, &line).as_bytes())
        .expect("written");
    wait_for(&fixture, "q", 1).await;
    let cmdline = fs::read(format!("/proc/{}/cmdline", program.id())).expect("it runs");
    let cmdline = String::from_utf8(cmdline).expect("UTF-8");
    assert!(
        cmdline.contains(command) && !cmdline.contains(SECRET),
        "{cmdline}"
    );
    assert!(!cmdline.contains(ESCAPED_SECRET), "{cmdline}");
    signal(&program, sent);
    let position = stopped(program, code, name);
    assert_eq!(live(&fixture, "q").await, position, "the position is exact");

    fixture.folder_file("input", lines(0..6000, &line));
    let skip = format!("--skip={position}");
    let rest = fixture
        .json("enqueued", &[command, "q", "input", &skip])
        .remove(0);
    assert_eq!(
        (&rest["stored"], &rest["duplicates"]),
        (&(6000 - position).into(), &0.into())
    );
    assert_eq!(rest["position"], 6000);
    assert_eq!(live(&fixture, "q").await, 6000, "none is there twice");
    assert_eq!(payloads(&fixture, "q").await.len(), 6000, "none is missing");
}

/// Passes connections on to the database, until it is dropped.
struct Forwarder {
    address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Forwarder {
    async fn to(database: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut all = JoinSet::new();
        all.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(&database).await.expect("the database");
                connections.spawn(async move {
                    // Each end may close it.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self {
            address,
            _connections: all,
        }
    }
}

async fn enqueue_goes_on_after_the_database_was_away() {
    let fixture = Fixture::new().await;
    away_after_1500(&fixture, "--label=input").await;
    let rest = fixture.json("enqueued", &["enqueue", "q", "input", "--skip=1500"]);
    assert_eq!(
        (&rest[0]["stored"], &rest[0]["position"]),
        (&500.into(), &2000.into())
    );
    assert_eq!(payloads(&fixture, "q").await.len(), 2000);
}

async fn a_failed_batch_with_new_ids_may_be_stored() {
    let fixture = Fixture::new().await;
    let said = away_after_1500(&fixture, "--new-ids").await;
    let (_, most) = said.split_once("; up to ").expect("a count");
    let (most, rest) = most.split_once(' ').expect("a count");
    assert!(
        (1..=1000).contains(&most.parse::<u64>().expect("a number")),
        "{said}"
    );
    let advice = "more may be stored; a repeat enqueues those again; messages of the input";
    assert!(rest.starts_with(advice), "{said}");
}

/// Enqueues 2000 lines, which the file `input` has too. The database is away after 1500 of them.
/// Returns the error.
async fn away_after_1500(fixture: &Fixture, ids: &str) -> String {
    let line = |n| format!("message {n}");
    let (_, hosts) = fixture.uri.split_once('@').expect("a user");
    let (host, _) = hosts.split_once('/').expect("an end");
    let forwarder = Forwarder::to(host.to_owned()).await;
    let uri = fixture.uri.replace(host, &forwarder.address.to_string());

    let args = [
        "enqueue",
        "q",
        "--create",
        "--output=json",
        "--timeout=5s",
        ids,
    ];
    let mut command = fixture.command(&args);
    let piped = command.env("QUEUECTL_URI", uri).stdin(Stdio::piped());
    let piped = piped.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = piped.spawn().expect("it starts");
    let mut input = program.stdin.take().expect("a pipe");
    input
        .write_all(lines(0..1500, &line).as_bytes())
        .expect("written");
    wait_for(fixture, "q", 1500).await;
    drop(forwarder);
    input
        .write_all(lines(1500..2000, &line).as_bytes())
        .expect("written");
    drop(input);
    let ended = tokio::task::spawn_blocking(|| program.wait_with_output());
    let done = Done::from(ended.await.expect("no panic").expect("it ends"));
    done.has_no_secret();
    // The last answer may have been on its way.
    let position = done.json("enqueued")[0]["position"]
        .as_u64()
        .expect("a count");
    let skip = format!("resume with --skip {position}");
    fixture.folder_file("input", lines(0..2000, &line));
    done.fails(4, &["enqueue: ", &skip]).err
}

/// The payloads of all messages, which this takes out of the queue.
async fn payloads(fixture: &Fixture, queue: &str) -> BTreeSet<String> {
    let options = queue_api::LeaseOptions::new(100_000);
    let deliveries = fixture
        .queue(queue)
        .lease_batch(&options)
        .await
        .expect("leased");
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).expect("UTF-8");
    deliveries
        .iter()
        .map(|delivery| text(&delivery.payload))
        .collect()
}

async fn enqueue_from_an_idle_pipe_stores_at_once_and_stops_at_once() {
    let fixture = Fixture::new().await;
    let mut program = start(&fixture, &["enqueue", "q", "--create", "--output=json"]);
    let mut input = program.stdin.take().expect("a pipe");
    input.write_all(b"a\nb\n").expect("written");
    wait_for(&fixture, "q", 2).await;
    signal(&program, Signal::INT);
    assert_eq!(stopped(program, 130, "SIGINT"), 2);
    drop(input);
}

fn short_lived(ids: std::ops::Range<u64>) -> Vec<NewMessage> {
    let timeout = Duration::from_millis(200);
    ids.map(|n| message(&n.to_string()).with_visibility_timeout(timeout))
        .collect()
}

async fn move_loses_nothing_when_it_is_stopped_or_killed() {
    for (sent, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let fixture = Fixture::new().await;
        let from = fixture.queue("from");
        from.enqueue_batch(&short_lived(0..2000))
            .await
            .expect("stored");
        let mut program = start(
            &fixture,
            &["move", "from", "to", "--create", "--output=json"],
        );
        wait_for(&fixture, "to", 1).await;
        signal(&program, sent);
        // Producers go on.
        let mut stored = 2000;
        while program.try_wait().expect("a look").is_none() {
            from.enqueue_batch(&short_lived(stored..stored + 100))
                .await
                .expect("stored");
            stored += 100;
        }
        let status = program.wait_with_output().expect("it ends").status;
        // It may have had the time to move all that it found.
        assert!(status.code() == code || status.success(), "{status}");

        while live(&fixture, "from").await > 0 {
            fixture.json("moved", &["move", "from", "to"]);
            pause().await;
        }
        assert_eq!(live(&fixture, "to").await, stored);
        let payloads = payloads(&fixture, "to").await;
        assert_eq!(payloads, (0..stored).map(|n| n.to_string()).collect());
    }
}

async fn export_goes_on_where_it_was_stopped_or_killed() {
    let fixture = Fixture::new().await;
    let messages: Vec<_> = (0..20_000).map(|n| message(&n.to_string())).collect();
    fixture
        .queue("q")
        .enqueue_batch(&messages)
        .await
        .expect("stored");
    let path = |name: &str| fixture.folder.path().join(name);
    for (sent, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let mut is_interrupted = false;
        // It may be complete before the signal.
        for _ in 0..20 {
            let mut program = start(&fixture, &["export", "q", "file", "--force"]);
            let has_begun = || {
                let part = fs::read(path("file.part")).unwrap_or_default();
                let part = serde_json::from_slice::<serde_json::Value>(&part).unwrap_or_default();
                part["messages"].as_u64() > Some(0)
            };
            while program.try_wait().expect("a look").is_none() {
                if has_begun() {
                    signal(&program, sent);
                    break;
                }
                pause().await;
            }
            let output = program.wait_with_output().expect("it ends");
            is_interrupted = output.status.code() == code;
            if is_interrupted {
                break;
            }
        }
        assert!(is_interrupted, "{sent:?}: it was always complete before");
        // As if it had been killed while it wrote a page.
        let file = OpenOptions::new().append(true).open(path("file"));
        file.expect("the file")
            .write_all(b"{\"id\":\"half")
            .expect("written");

        let done = fixture.json("exported", &["export", "q", "file"]);
        assert_eq!(done[0]["exported"], 20_000);
        let text = fs::read_to_string(path("file")).expect("the file");
        let id = |line: &str| -> String {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            record["id"].as_str().expect("an id").to_owned()
        };
        let ids: Vec<_> = text.lines().map(id).collect();
        assert_eq!(ids.len(), 20_000, "none is there twice");
        assert_eq!(
            ids.into_iter().collect::<BTreeSet<_>>().len(),
            20_000,
            "none is missing"
        );
    }
}
