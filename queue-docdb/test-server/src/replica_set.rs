//! From a process that may not listen yet to a writable primary.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::Result;
use mongodb::options::ClientOptions;

use crate::error::{Failure, within};
use crate::options::REPLICA_SET;
use crate::running::LastWords;

/// From start to listening; a first start on a busy machine takes several seconds.
const LISTENING: Duration = Duration::from_secs(60);
/// The only member elects itself, usually within half a second.
const ELECTION: Duration = Duration::from_secs(60);
/// One attempt to reach the server. Short, because the driver looks again only after
/// half a second, and a fresh client looks at once.
const ATTEMPT: Duration = Duration::from_millis(200);
/// A greeting that says something about now.
const GREETING: Duration = Duration::from_secs(1);
/// Anything else a server is asked.
const ANSWER: Duration = Duration::from_secs(30);

/// Waits until a server that was just started answers, or has ended.
pub(crate) async fn await_answer(
    uri: &str,
    server: &impl LastWords,
) -> std::result::Result<(), Failure> {
    tokio::time::timeout(LISTENING, listening(uri, server))
        .await
        .map_err(|_| Failure::new(format!("no answer within {} s", LISTENING.as_secs())))?
}

/// Makes a fresh server the primary of a replica set with one member.
///
/// `member` is the server's address as the server itself sees it.
pub(crate) async fn initiate(uri: &str, member: &str) -> std::result::Result<(), Failure> {
    let config = doc! { "_id": REPLICA_SET, "members": [{ "_id": 0, "host": member }] };
    initiate_as(uri, config).await
}

/// Makes a fresh server a member of the replica set that this describes, and waits until it
/// is the primary.
pub(crate) async fn initiate_as(uri: &str, config: Document) -> std::result::Result<(), Failure> {
    let primary = async {
        let client = client(uri, ANSWER).await?;
        run(&client, doc! { "replSetInitiate": config }).await?;
        while !is_primary(&client).await? {
            breathe().await;
        }
        Ok::<_, mongodb::error::Error>(())
    };
    within(ELECTION, "initiating the replica set", primary).await
}

/// The option `--dbpath` of the server, which tells it from any other.
pub(crate) async fn data_path(uri: &str) -> std::result::Result<String, Failure> {
    let asked = async {
        let reply = run(&client(uri, ANSWER).await?, doc! { "getCmdLineOpts": 1 }).await?;
        let storage = reply
            .get_document("parsed")
            .and_then(|it| it.get_document("storage"));
        let path = storage
            .and_then(|it| it.get_str("dbPath"))
            .unwrap_or_default();
        Ok::<_, mongodb::error::Error>(path.to_owned())
    };
    within(ANSWER, "asking for the server's options", asked).await
}

/// Checks that a server that somebody else started can be used.
pub(crate) async fn check(uri: &str) -> std::result::Result<(), Failure> {
    let asked = async { is_primary(&client(uri, ANSWER).await?).await };
    if within(ANSWER * 2, "connecting", asked).await? {
        return Ok(());
    }
    Err(Failure::new("the server is not a writable primary"))
}

/// Drops a database.
pub(crate) async fn drop_database(uri: &str, name: &str) -> std::result::Result<(), Failure> {
    let dropped = async { client(uri, ANSWER).await?.database(name).drop().await };
    within(ANSWER * 2, &format!("dropping database {name}"), dropped).await
}

/// Waits for the first answer, or for the server's early end.
async fn listening(uri: &str, server: &impl LastWords) -> std::result::Result<(), Failure> {
    loop {
        let answer = async {
            let client = client(uri, ATTEMPT).await?;
            run(&client, doc! { "hello": 1 }).await
        };
        if answer.await.is_ok() {
            return Ok(());
        }
        if let Some(last_words) = server.last_words().await {
            return Err(Failure::new(format!("mongod ended:\n{last_words}")));
        }
        // An attempt may fail at once, too.
        breathe().await;
    }
}

/// What a server says of itself and of the other members; nothing where it does not answer at
/// once, as one that is frozen or cut off.
pub(crate) async fn hello_and_status(uri: &str) -> Option<(Document, Document)> {
    let asked = async {
        let client = client(uri, GREETING).await?;
        let hello = run(&client, doc! { "hello": 1 }).await?;
        // An error as long as it does not know that it is a member.
        let status = run(&client, doc! { "replSetGetStatus": 1 }).await;
        Ok::<_, mongodb::error::Error>((hello, status.unwrap_or_default()))
    };
    tokio::time::timeout(GREETING, asked).await.ok()?.ok()
}

async fn is_primary(client: &Client) -> Result<bool> {
    let hello = run(client, doc! { "hello": 1 }).await?;
    Ok(hello.get_bool("isWritablePrimary").unwrap_or(false))
}

async fn run(client: &Client, command: Document) -> Result<Document> {
    client.database("admin").run_command(command).await
}

async fn client(uri: &str, patience: Duration) -> Result<Client> {
    let mut options = ClientOptions::parse(uri).await?;
    options.app_name = Some(env!("CARGO_PKG_NAME").to_owned());
    options.server_selection_timeout = Some(patience);
    Client::with_options(options)
}

/// The pause between two questions.
#[expect(
    clippy::disallowed_methods,
    reason = "a real server is waited for in real time, on a runtime of its own"
)]
pub(crate) async fn breathe() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
