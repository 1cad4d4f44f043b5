//! `top` on a real terminal: keys in, the screen out.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use mongodb_test_server::{MongoReplicaSet, ReplicaSetOptions};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use queue_api::{Purge, Queue};
use queue_docdb::{
    DocDbBackend,
    mongodb::bson::{Document, doc},
};

use crate::fixture::{ESCAPED_SECRET, Fixture, SECRET, bare, message, pause};

tests! {
    two_hundred_queues,
    a_connection_that_is_lost_comes_back,
    a_snapshot_is_a_picture_of_the_screen,
    settings_of_top_are_checked,
}

const SIZE: PtySize = PtySize {
    rows: 24,
    cols: 80,
    pixel_width: 0,
    pixel_height: 0,
};

/// Longer than anything takes, also on a machine under load.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

struct Screen {
    /// Closes the terminal with the program.
    _terminal: Box<dyn MasterPty + Send>,
    program: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Screen {
    fn open(command: &std::process::Command) -> Self {
        let pair = native_pty_system().openpty(SIZE).expect("a terminal");
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.env_clear();
        builder.env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            builder.env(name, value.expect("a value"));
        }
        builder.cwd(command.get_current_dir().expect("a folder"));
        let program = pair.slave.spawn_command(builder).expect("it starts");
        let mut output = pair.master.try_clone_reader().expect("a reader");
        let keyboard = pair.master.take_writer().expect("a writer");
        let parser = Arc::new(Mutex::new(vt100::Parser::new(SIZE.rows, SIZE.cols, 0)));
        let shown = Arc::clone(&parser);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                shown.lock().expect("not poisoned").process(&buffer[..read]);
            }
        });
        Self {
            _terminal: pair.master,
            program,
            keyboard,
            parser,
        }
    }

    fn text(&self) -> String {
        self.parser
            .lock()
            .expect("not poisoned")
            .screen()
            .contents()
    }

    fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits until the screen has all of these.
    #[track_caller]
    fn shows(&self, parts: &[&str]) -> impl Future<Output = String> {
        let (place, parts) = (std::panic::Location::caller(), parts.to_vec());
        async move {
            let seen = tokio::time::timeout(ANSWER_TIMEOUT, async {
                loop {
                    let text = self.text();
                    if parts.iter().all(|part| text.contains(part)) {
                        return text;
                    }
                    pause().await;
                }
            });
            let seen = seen.await;
            seen.unwrap_or_else(|_| panic!("{place}: not {parts:?} but\n{}", self.text()))
        }
    }

    /// Its exit code. It has left the terminal as it was.
    async fn end(mut self) -> u32 {
        let code = loop {
            if let Some(status) = self.program.try_wait().expect("a status") {
                break status.exit_code();
            }
            pause().await;
        };
        let left = tokio::time::timeout(ANSWER_TIMEOUT, async {
            while self
                .parser
                .lock()
                .expect("not poisoned")
                .screen()
                .alternate_screen()
            {
                pause().await;
            }
        });
        left.await.expect("the screen before is back");
        assert!(
            !self
                .parser
                .lock()
                .expect("not poisoned")
                .screen()
                .hide_cursor()
        );
        code
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Of a test that failed.
        let _ = self.program.kill();
    }
}

/// The line with this queue, in words.
fn row(text: &str, queue: &str) -> Vec<String> {
    let found = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(queue));
    let found = found.unwrap_or_else(|| panic!("no {queue} in\n{text}"));
    found.split_whitespace().map(str::to_owned).collect()
}

async fn two_hundred_queues() {
    const BUDGET: usize = 300;
    let fixture = Fixture::new().await;
    let fixture = &fixture;
    let stored = stream::iter(0..200).map(|n| async move {
        let queue = fixture.queue(&format!("q{n:03}"));
        queue.enqueue(&message("first")).await.expect("stored");
    });
    stored.buffer_unordered(16).collect::<Vec<()>>().await;
    fixture
        .admin()
        .purge("q007", Purge::Live)
        .await
        .expect("purged");
    for id in ["x", "y"] {
        fixture.store_dead("q007", message(id), "broken pipe").await;
    }
    fixture.store("q007", &["a", "b", "c"]).await;
    let database = fixture.backend.client().database(fixture.database.name());
    let all = doc! { "profile": 2 };
    database
        .run_command(all)
        .await
        .expect("every command is recorded");

    let budget = BUDGET.to_string();
    let mut screen = Screen::open(&fixture.command(&["top", "--commands", &budget]));
    let text = screen
        .shows(&["200 queues by depth ↓", "q007", "of 300 commands/s"])
        .await;
    assert!(
        !text.contains(SECRET) && !text.contains(ESCAPED_SECRET),
        "{text}"
    );
    let text = screen.shows(&["q007", "        3 "]).await;
    let first = row(&text, "q007");
    assert_eq!(
        (first[1].as_str(), first.last().map(String::as_str)),
        ("3", Some("2")),
        "{text}"
    );
    assert_eq!(
        text.lines().nth(2).map(|line| line.contains("q007")),
        Some(true),
        "{text}"
    );

    screen.keys("/q19");
    screen.shows(&["10 with /q19_", "q190", "q199"]).await;
    screen.keys("\x7f\x7f\x7fq007\r");
    screen.shows(&["1 with /q007 "]).await;
    screen.keys("\r");
    screen
        .shows(&[
            "next messages",
            "3 ready, 0 delayed, 0 leased, 2 dead",
            "broken pipe",
        ])
        .await;
    screen.keys("r");
    screen
        .shows(&["redrive 2 dead letters of queue q007? y or n"])
        .await;
    screen.keys("n");
    screen.shows(&["nothing was changed"]).await;
    assert_eq!(fixture.admin().stats("q007").await.expect("stats").dead, 2);
    screen.keys("ry");
    screen
        .shows(&["redrove 2 dead letters of queue q007", "5 ready"])
        .await;
    assert_eq!(fixture.admin().stats("q007").await.expect("stats").dead, 0);
    screen.keys("py");
    screen
        .shows(&["removed 5 live messages of queue q007", "0 ready"])
        .await;
    screen.keys("xy");
    screen
        .shows(&["deleted queue q007", "does not exist any more"])
        .await;
    screen.keys("\x1b");
    screen.shows(&["199 queues", "no queue has this"]).await;
    screen.keys("\x1b");
    screen.shows(&["199 queues", "q000"]).await;
    screen.keys("s");
    screen.shows(&["199 queues by dead ↓"]).await;
    screen.keys("q");
    assert_eq!(screen.end().await, 0);
    bounded(&database, BUDGET).await;
}

/// No second has more commands than the budget, by what the server recorded. One look may have
/// been under way when the second began.
async fn bounded(database: &queue_docdb::mongodb::Database, budget: usize) {
    const LOOK: usize = 12;
    let stop = doc! { "profile": 0 };
    database.run_command(stop).await.expect("stopped");
    let own = doc! { "appName": { "$regex": "^queuectl/" }, "op": { "$ne": "getmore" } };
    let profile = database.collection::<Document>("system.profile");
    let records = profile.find(own).await.expect("records");
    let records: Vec<_> = records.collect().await;
    let at = |record: &Document| {
        record
            .get_datetime("ts")
            .expect("a time")
            .timestamp_millis()
    };
    let mut times: Vec<_> = records
        .iter()
        .map(|it| at(it.as_ref().expect("a record")))
        .collect();
    times.sort();
    assert!(
        times.len() > budget,
        "{} commands were recorded",
        times.len()
    );
    let most = times.iter().enumerate().map(|(first, began)| {
        times[first..]
            .iter()
            .take_while(|at| **at - began < 1000)
            .count()
    });
    let most = most.max().expect("records");
    println!("at most {most} of {} commands in a second", times.len());
    assert!(most <= budget + LOOK, "{most} commands in a second");
}

async fn a_connection_that_is_lost_comes_back() {
    // The member stays primary while it is frozen.
    let options = ReplicaSetOptions::new().with_election_timeout(Duration::from_secs(15));
    let set = MongoReplicaSet::start(options).await.expect("a set");
    let primary = set.settled().await.expect("a primary");
    let uri = set.member_uri(primary);
    let backend = DocDbBackend::builder(&uri).database("shop").connect().await;
    let backend = Arc::new(backend.expect("a connection"));
    let mail = Queue::new(backend, "mail").expect("a queue");
    mail.enqueue(&message("a")).await.expect("stored");

    let arguments = [
        "top",
        "--uri",
        &uri,
        "--database",
        "shop",
        "--timeout",
        "3s",
    ];
    let screen = Screen::open(&bare(&arguments));
    let text = screen.shows(&["1 queue by depth", "mail", "0s"]).await;
    assert!(!text.contains("lost"), "{text}");
    set.freeze(primary).await.expect("frozen");
    let text = screen.shows(&["connection lost, trying again: "]).await;
    assert!(text.contains("mail"), "what was known stays:\n{text}");
    set.thaw(primary).await.expect("thawed");
    mail.enqueue(&message("b")).await.expect("stored");
    let back = tokio::time::timeout(ANSWER_TIMEOUT, async {
        loop {
            let text = screen.text();
            if !text.contains("lost") && row(&text, "mail")[1] == "2" {
                return;
            }
            pause().await;
        }
    });
    back.await.unwrap_or_else(|_| panic!("{}", screen.text()));
    let id = screen.program.process_id().expect("an id");
    let id = rustix::process::Pid::from_raw(id.try_into().expect("an id")).expect("an id");
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a signal");
    assert_eq!(screen.end().await, 143);
    set.shut_down().await.expect("removed");
}

async fn a_snapshot_is_a_picture_of_the_screen() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a", "b"]).await;
    fixture.run(&["top", "--snapshot", "top.svg"]).succeeds();
    let picture = std::fs::read_to_string(fixture.folder.path().join("top.svg")).expect("a file");
    assert!(
        picture.starts_with("<svg ") && picture.ends_with("</svg>\n"),
        "{picture}"
    );
    assert!(
        picture.contains("mail") && picture.contains("1 queue by depth"),
        "{picture}"
    );
    let missing = fixture.run(&["top", "--snapshot", "no/such/top.svg"]);
    missing.fails(1, &["cannot write no/such/top.svg"]);
}

async fn settings_of_top_are_checked() {
    let fixture = Fixture::new().await;
    fixture
        .run(&["top"])
        .fails(2, &["needs a terminal", "--snapshot"]);
    fixture
        .run(&["top", "--commands", "5"])
        .fails(2, &["--commands is 5", "at least 12"]);
}
