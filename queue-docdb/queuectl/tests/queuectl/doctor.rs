//! What `doctor` says of broken set-ups. docs/doctor.md has the same lines.

pub(crate) mod clock;
pub(crate) mod servers;

use std::{net::IpAddr, process::Command};

use queue_docdb::mongodb::{
    Client,
    bson::{Document, doc},
};
use serde_json::Value;

use crate::fixture::{Done, ESCAPED_SECRET, Fixture, SECRET, bare};

tests! {
    all_is_well_and_nothing_changes,
    a_wrong_password,
    a_user_without_rights,
    no_user,
    an_index_was_dropped,
    a_wrong_database,
    a_queue_of_an_old_version_or_of_none,
    nothing_listens,
}

/// What each check found.
struct Doctor(Vec<Value>);

impl Doctor {
    /// Runs it in JSON, with and without failed checks.
    #[track_caller]
    fn of(command: &mut Command) -> Self {
        let done = Done::of(command.args(["--output", "json", "--timeout", "5s"]));
        let checks = done.json("check");
        assert!(!checks.is_empty(), "{}", done.err);
        let has_failed = checks.iter().any(|check| check["result"] == "failed");
        assert_eq!(done.code, i32::from(has_failed), "{}{}", done.out, done.err);
        assert_eq!(done.err, "");
        Self(checks)
    }

    /// The check has this result, and the page has its text in the line of this set-up.
    #[track_caller]
    fn says(&self, set_up: &str, check: &str, result: &str) -> &Self {
        is_in_the_page(&self.line(set_up, check, result));
        self
    }

    #[track_caller]
    fn check(&self, check: &str) -> &Value {
        let all = &self.0;
        let found = all.iter().find(|it| it["check"] == check);
        found.unwrap_or_else(|| panic!("no check {check} in {all:#?}"))
    }

    fn result(&self, check: &str) -> &Value {
        &self.check(check)["result"]
    }

    #[track_caller]
    fn line(&self, set_up: &str, check: &str, result: &str) -> String {
        let found = self.check(check);
        assert_eq!(found["result"], result, "{found}");
        let finding = found["finding"].as_str().expect("a text");
        let text = match found["advice"].as_str() {
            Some(advice) => format!("{finding}; {advice}"),
            None => finding.to_owned(),
        };
        format!("| {set_up} | {check} | {result} | {} |", normalised(&text))
    }

    #[track_caller]
    /// The time of a round trip depends on what else the machine does.
    fn is_well_but(&self, others: &[&str]) {
        for check in &self.0 {
            let name = check["check"].as_str().expect("a name");
            let may_differ = name == "round trip" || others.contains(&name);
            assert!(check["result"] == "ok" || may_differ, "{check}");
        }
    }
}

#[track_caller]
fn is_in_the_page(line: &str) {
    println!("{line}");
    let page = include_str!("../../docs/doctor.md");
    let is_there = page.lines().any(|it| it == line);
    assert!(is_there, "docs/doctor.md does not have: {line}");
}

/// Without what differs between runs: addresses, names of databases, and numbers with a point.
fn normalised(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let bare = word.trim_matches(['(', ')', ',', ';', ':', '"']);
        let (host, port) = bare.rsplit_once(':').unwrap_or_default();
        let is_host = host == "localhost" || host.parse::<IpAddr>().is_ok();
        let is_real = bare.contains('.') && bare.parse::<f64>().is_ok();
        match () {
            () if is_host && port.parse::<u16>().is_ok() => word.replace(bare, "db:27017"),
            () if bare.starts_with("test_") => word.replace(bare, "shop"),
            () if is_real => word.replace(bare, "…"),
            () => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn doctor(fixture: &Fixture, args: &[&str]) -> Doctor {
    Doctor::of(&mut fixture.command(&[&["doctor"], args].concat()))
}

async fn admin(fixture: &Fixture, command: Document) {
    let admin = fixture.backend.client().database("admin");
    admin.run_command(command).await.expect("done");
}

fn documents(fixture: &Fixture) -> queue_docdb::mongodb::Collection<Document> {
    let database = fixture.backend.client().database(fixture.database.name());
    database.collection("queue.mail")
}

async fn all_is_well_and_nothing_changes() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let database = fixture.backend.client().database(fixture.database.name());
    let before = database
        .run_command(doc! { "dbHash": 1 })
        .await
        .expect("a hash");
    doctor(&fixture, &["mail"]).is_well_but(&["tls"]);
    let after = database
        .run_command(doc! { "dbHash": 1 })
        .await
        .expect("a hash");
    assert_eq!(before.get("md5"), after.get("md5"));

    let table = fixture.run(&["doctor", "mail"]).succeeds().out;
    for check in [
        "connection",
        "tls",
        "engine",
        "members",
        "majority",
        "clock",
        "round trip",
        "pool",
        "rights",
        "change stream",
        "queues",
        "queue",
        "schema",
        "indexes",
    ] {
        let is_its = |line: &&str| line.trim_start().starts_with(&format!("{check} "));
        assert_eq!(table.lines().filter(is_its).count(), 1, "{check}: {table}");
    }
}

async fn a_wrong_password() {
    let fixture = Fixture::new().await;
    std::fs::write(fixture.folder.path().join("wrong"), "x").expect("a file");
    doctor(&fixture, &["--password-file", "wrong"])
        .says("wrong password", "connection", "failed")
        .says("wrong password", "members", "ok")
        .says("wrong password", "majority", "ok")
        .says("wrong password", "rights", "not checked");
}

async fn a_user_without_rights() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let name = format!("reader-{}", fixture.database.name());
    let roles = doc! { "role": "read", "db": fixture.database.name() };
    admin(
        &fixture,
        doc! { "createUser": &name, "pwd": SECRET, "roles": [roles] },
    )
    .await;
    let uri = fixture.uri.replace("ada@", &format!("{name}@"));
    let found = doctor(&fixture, &["--uri", &uri, "mail"]);
    let line = found
        .line("no rights", "rights", "failed")
        .replace(&name, "reader");
    is_in_the_page(&line);
    found.is_well_but(&["rights", "pool", "tls"]);

    admin(
        &fixture,
        doc! { "revokeRolesFromUser": &name, "roles": [
            { "role": "read", "db": fixture.database.name() }
        ] },
    )
    .await;
    let found = doctor(&fixture, &["--uri", &uri, "mail"]);
    for check in ["rights", "queues", "queue"] {
        found.line("", check, "failed");
    }
    admin(&fixture, doc! { "dropUser": name }).await;
}

async fn no_user() {
    let fixture = Fixture::new().await;
    let uri = fixture.uri.replace("ada@", "");
    let mut command = bare(&[
        "doctor",
        "--uri",
        &uri,
        "--database",
        fixture.database.name(),
    ]);
    Doctor::of(&mut command).says("no user", "rights", "failed");
}

async fn an_index_was_dropped() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    documents(&fixture)
        .drop_index("visible_at_1")
        .await
        .expect("dropped");
    doctor(&fixture, &["mail"]).says("index dropped", "indexes", "warning");
    let left = documents(&fixture)
        .list_index_names()
        .await
        .expect("a list");
    assert!(!left.contains(&"visible_at_1".to_owned()), "it makes none");
}

async fn a_wrong_database() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let found = doctor(&fixture, &["--database", "test_typo", "mail"]);
    found.says("wrong database", "queue", "failed");
    let line = found.line("wrong database", "queues", "warning");
    let expected = "there are none in database shop with prefix \"queue.\"; set --database if you \
                    mean one of those that have collections with this prefix:";
    assert!(line.contains(expected), "{line}");
    let all = found.check("queues");
    assert!(
        all["advice"]
            .as_str()
            .expect("an advice")
            .contains(fixture.database.name())
    );
}

async fn a_queue_of_an_old_version_or_of_none() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let id = doc! { "_id": { "queue-docdb": "schema" } };
    let old = doc! { "$set": { "version": 2_i64 } };
    documents(&fixture)
        .update_one(id, old)
        .await
        .expect("updated");
    doctor(&fixture, &["mail"])
        .says("old version", "queue", "failed")
        .says("old version", "indexes", "failed");
    fixture.store("reports", &["a"]).await;
    let line = doctor(&fixture, &["report"]).line("", "queue", "failed");
    assert!(line.contains("did you mean reports?"), "{line}");
    let line = doctor(&fixture, &["--prefix=q.", "reports"]).line("", "queue", "failed");
    let other = "set --prefix if you mean one of the queues with another one: queue.reports, \
                 queue.mail; `queuectl enqueue reports --create` makes one";
    assert!(line.contains(other), "{line}");
}

async fn nothing_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let uri = format!("mongodb://ada:{ESCAPED_SECRET}@127.0.0.1:{port}/shop");
    let mut command = bare(&["doctor", "--timeout", "1s", "--output", "json"]);
    let done = Done::of(command.env("QUEUECTL_URI", uri));
    let checks = done.json("check");
    assert_eq!(
        (done.code, checks[0]["result"].as_str()),
        (1, Some("failed"))
    );
    let finding = format!("nothing listens at 127.0.0.1:{port}");
    assert_eq!(checks[0]["finding"], finding.as_str());
    assert!(
        !done.out.contains("Kind") && !done.out.contains("labels"),
        "{}",
        done.out
    );
    assert!(checks.iter().all(|it| it["result"] != "ok"), "{}", done.out);
    let mut command = bare(&["doctor"]);
    Done::of(command.env("QUEUECTL_URI", "mongodb://[/shop")).fails(1, &[]);
    // The driver would panic, and quote the password.
    let mut command = bare(&["doctor"]);
    let done = Done::of(command.env("QUEUECTL_URI", "mongodb://ada:%aésecret@h/shop"));
    let done = done.fails(1, &[]);
    assert!(done.out.contains("percent-encoded"), "{}", done.out);
    let all = done.out + &done.err;
    assert!(
        !all.contains("secret") && !all.contains("panicked"),
        "{all}"
    );
    Done::of(&mut bare(&["doctor"])).fails(2, &["there is no URI"]);
}

/// A client of a server's, for its set-up.
async fn client(uri: &str) -> Client {
    Client::with_uri_str(uri).await.expect("a client")
}
