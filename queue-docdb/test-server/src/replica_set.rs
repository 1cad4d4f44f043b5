//! Commands to servers, from a process that may not listen yet to a writable primary.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::Error;
use mongodb::options::ClientOptions;

use crate::error::{StepError, within};

/// The name of each started server's replica set.
pub(crate) const NAME: &str = "rs0";

/// What `mongod` prints when another program has its port.
pub(crate) const PORT_TAKEN: &str = "Address already in use";

/// A first start on a busy machine takes several seconds.
const LISTENING: Duration = Duration::from_secs(60);
const ELECTION: Duration = Duration::from_secs(60);
/// One attempt to connect. Short: the driver tries again after half a second, a new client at
/// once.
const ATTEMPT: Duration = Duration::from_millis(200);
const STATUS: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(30);

/// How many lines of a server's output an error carries.
const LAST_LINES: usize = 12;

/// A server that was just started.
pub(crate) trait Server {
    /// The last lines of its output, if it has ended.
    async fn output_if_ended(&self) -> Option<String>;
}

/// Waits until the server answers, or has ended.
///
/// On a port that was free before, another server may answer: the data path tells.
pub(crate) async fn await_answer(
    uri: &str,
    data_path: &str,
    server: &impl Server,
) -> Result<(), StepError> {
    let answered = async {
        loop {
            let command = doc! { "getCmdLineOpts": 1 };
            if let Ok(reply) = run(uri, ATTEMPT, command).await {
                let parsed = reply.get_document("parsed");
                let storage = parsed.and_then(|it| it.get_document("storage"));
                return match storage.and_then(|it| it.get_str("dbPath")) {
                    Ok(path) if path == data_path => Ok(()),
                    _ => Err(StepError::new(PORT_TAKEN)),
                };
            }
            if let Some(output) = server.output_if_ended().await {
                return Err(StepError::new(format!("mongod ended:\n{output}")));
            }
            pause().await;
        }
    };
    let answered = tokio::time::timeout(LISTENING, answered).await;
    answered.map_err(|_| StepError::new(format!("no answer for {} s", LISTENING.as_secs())))?
}

/// Makes a new server a replica set, and waits until it is the primary.
pub(crate) async fn initiate(uri: &str, config: Document) -> Result<(), StepError> {
    let primary = async {
        run(uri, ANSWER, doc! { "replSetInitiate": config }).await?;
        while !is_primary(uri).await? {
            pause().await;
        }
        Ok::<_, Error>(())
    };
    within(ELECTION, "initiating the replica set", primary).await
}

/// Checks that the server that `QUEUE_TEST_MONGODB_URI` names can be used.
pub(crate) async fn check(uri: &str) -> Result<(), StepError> {
    if within(ANSWER * 2, "connecting", is_primary(uri)).await? {
        return Ok(());
    }
    Err(StepError::new("the server is not a writable primary"))
}

pub(crate) async fn drop_database(uri: &str, name: &str) -> Result<(), StepError> {
    let dropped = async { client(uri, ANSWER).await?.database(name).drop().await };
    within(ANSWER * 2, format!("dropping database {name}"), dropped).await
}

/// What a member says of itself (`hello`) and of the others (`replSetGetStatus`). `None` if it
/// does not answer at once, because it is frozen or cut off.
pub(crate) async fn hello_and_status(uri: &str) -> Option<(Document, Document)> {
    let asked = async {
        let hello = run(uri, STATUS, doc! { "hello": 1 }).await?;
        // An error while it does not know that it is a member.
        let status = run(uri, STATUS, doc! { "replSetGetStatus": 1 }).await;
        Ok::<_, Error>((hello, status.unwrap_or_default()))
    };
    tokio::time::timeout(STATUS, asked).await.ok()?.ok()
}

async fn is_primary(uri: &str) -> Result<bool, Error> {
    let hello = run(uri, ANSWER, doc! { "hello": 1 }).await?;
    Ok(hello.get_bool("isWritablePrimary").unwrap_or(false))
}

async fn run(uri: &str, timeout: Duration, command: Document) -> Result<Document, Error> {
    let admin = client(uri, timeout).await?.database("admin");
    admin.run_command(command).await
}

async fn client(uri: &str, timeout: Duration) -> Result<Client, Error> {
    let mut options = ClientOptions::parse(uri).await?;
    options.app_name = Some(env!("CARGO_PKG_NAME").to_owned());
    let of_uri = options.server_selection_timeout.unwrap_or(timeout);
    options.server_selection_timeout = Some(of_uri.min(timeout));
    Client::with_options(options)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server has no other way to say that it is ready"
)]
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// The end of a server's output, where the reason is.
pub(crate) fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
