//! A database for a test, and the program that works on it.

use std::{
    fs,
    process::{Command, Output, Stdio},
    sync::{Arc, LazyLock},
    time::Duration,
};

use jsonschema::Validator;
use mongodb_test_server::{MongoServer, ScratchDatabase, ServerOptions};
use queue_api::{Admin, NewMessage, Queue};
use queue_docdb::{
    DocDbBackend,
    mongodb::{Client, bson::doc},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The password of the user of all tests. No output may have it.
pub(crate) const SECRET: &str = "s3cr3t/of@ada:%";

/// The same in a URI.
pub(crate) const ESCAPED_SECRET: &str = "s3cr3t%2Fof%40ada%3A%25";

/// The server of all tests, which lets only its user in.
async fn server() -> &'static MongoServer {
    static SERVER: OnceCell<MongoServer> = OnceCell::const_new();
    let start = async || {
        let options = ServerOptions::new().with_access_control();
        let server = MongoServer::start_dedicated(options)
            .await
            .expect("a MongoDB");
        let client = Client::with_uri_str(server.admin_uri())
            .await
            .expect("a client");
        let user = doc! { "createUser": "ada", "pwd": SECRET, "roles": ["root"] };
        client
            .database("admin")
            .run_command(user)
            .await
            .expect("a user");
        server
    };
    SERVER.get_or_init(start).await
}

/// What this package documents.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../schema.json")).expect("the schema is JSON")
});

pub(crate) struct Fixture {
    /// With the user, without the password.
    pub(crate) uri: String,
    /// Files of the test; `password` is one.
    pub(crate) folder: TempDir,
    pub(crate) database: ScratchDatabase,
    pub(crate) backend: Arc<DocDbBackend>,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let server = server().await;
        let database = server.scratch_database();
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("password"), format!("{SECRET}\n")).expect("a file");
        let uri_of = |user: &str| server.uri().replacen("://", &format!("://{user}@"), 1);
        let with_password = uri_of(&format!("ada:{ESCAPED_SECRET}"));
        let backend = DocDbBackend::builder(with_password)
            .database(database.name())
            .connect()
            .await;
        Self {
            uri: uri_of("ada"),
            folder,
            database,
            backend: Arc::new(backend.expect("a connection")),
        }
    }

    pub(crate) fn queue(&self, name: &str) -> Queue {
        Queue::new(self.backend.clone(), name).expect("a queue's name")
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.backend.clone())
    }

    /// Stores a message for each payload, with the payload as its id.
    pub(crate) async fn store(&self, queue: &str, payloads: &[&str]) {
        let messages: Vec<_> = payloads.iter().map(|payload| message(payload)).collect();
        let stored = self.queue(queue).enqueue_batch(&messages).await;
        assert_eq!(stored.expect("stored").len(), messages.len());
    }

    /// Stores a message and makes it a dead letter.
    pub(crate) async fn store_dead(&self, queue: &str, message: NewMessage, reason: &str) {
        let queue = self.queue(queue);
        queue.enqueue(&message).await.expect("stored");
        let delivery = queue.lease().await.expect("an answer").expect("a message");
        assert_eq!(delivery.id, message.id, "nothing else is ready");
        let outcome = queue.dead_letter(&delivery.receipt, reason).await;
        assert!(outcome.expect("an answer").is_applied());
    }

    /// The program, connected to the database of this test.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(args);
        command
            .current_dir(self.folder.path())
            .env("QUEUECTL_URI", &self.uri)
            .env("QUEUECTL_PASSWORD_FILE", "password")
            .env("QUEUECTL_DATABASE", self.database.name());
        command
    }

    pub(crate) fn folder_file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(name), content).expect("a file");
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::of(&mut self.command(args))
    }

    /// The objects that the program prints. Each must fit the part of the schema.
    pub(crate) fn json(&self, part: &str, args: &[&str]) -> Vec<Value> {
        let done = self.run(&[&["--output", "json"], args].concat());
        done.succeeds().json(part)
    }
}

pub(crate) fn message(payload: &str) -> NewMessage {
    let id = payload.parse().expect("an id");
    NewMessage::new(payload.to_owned()).with_id(id)
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process does something meanwhile"
)]
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// The program without any settings of the machine.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queuectl"));
    command
        .args(args)
        .env_clear()
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null());
    command
}

/// What a run of the program left.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn of(command: &mut Command) -> Self {
        let done = Self::from(command.output().expect("the program runs"));
        done.has_no_secret();
        done
    }

    #[track_caller]
    pub(crate) fn has_no_secret(&self) {
        let shown = format!("{}{}", self.out, self.err);
        for secret in [SECRET, ESCAPED_SECRET] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// It ended with this code and an error that contains each text.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is not in {}", self.err);
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(&self, part: &str) -> Vec<Value> {
        let validator = validator(part);
        let objects = self.out.lines().map(|line| {
            let object = serde_json::from_str(line).expect("a JSON object on each line");
            if let Err(error) = validator.validate(&object) {
                panic!("{line} is no {part}: {error}");
            }
            object
        });
        objects.collect()
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code().expect("it was not killed"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

pub(crate) fn validator(part: &str) -> Validator {
    let definitions = &SCHEMA["$defs"];
    assert!(definitions[part].is_object(), "the schema has no {part}");
    let schema = json!({ "$ref": format!("#/$defs/{part}"), "$defs": definitions });
    jsonschema::validator_for(&schema).expect("a valid schema")
}
