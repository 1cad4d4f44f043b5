//! What a failover undoes. The command runs in a transaction that is aborted: its reply is that of the
//! old primary, and the new primary has nothing of it.

use std::io;

use mongodb::bson::{Bson, Document, Uuid, doc};
use tokio::net::TcpStream;

use crate::wire::{Command, Message};

/// What belongs to a session or a transaction of the client.
const OF_THE_CLIENT: [&str; 5] = [
    "lsid",
    "txnNumber",
    "$clusterTime",
    "writeConcern",
    "readConcern",
];

/// A write that a find shows before it is undone.
pub(crate) struct Shown {
    server: TcpStream,
    transaction: Vec<(&'static str, Bson)>,
}

impl Shown {
    pub(crate) async fn run(server: &str, write: &Command) -> io::Result<Self> {
        let mut shown = Self {
            server: TcpStream::connect(server).await?,
            transaction: new_transaction(),
        };
        let mut first = within(write, &shown.transaction);
        first.insert("startTransaction", true);
        send(&mut shown.server, &first).await?;
        Ok(shown)
    }

    /// The reply to a find. Then the write is undone.
    pub(crate) async fn find(mut self, find: &Command) -> io::Result<Document> {
        let reply = send(&mut self.server, &within(find, &self.transaction)).await?;
        self.undo().await?;
        Ok(reply)
    }

    pub(crate) async fn undo(mut self) -> io::Result<()> {
        abort(&mut self.server, &self.transaction).await
    }
}

fn new_transaction() -> Vec<(&'static str, Bson)> {
    vec![
        ("lsid", Bson::Document(doc! { "id": Uuid::new() })),
        ("txnNumber", Bson::Int64(1)),
        ("autocommit", Bson::Boolean(false)),
    ]
}

/// The command as one of this transaction.
fn within(command: &Command, transaction: &[(&str, Bson)]) -> Document {
    let mut alone = command.0.clone();
    for field in OF_THE_CLIENT {
        alone.remove(field);
    }
    add(&mut alone, transaction);
    alone
}

async fn abort(server: &mut TcpStream, transaction: &[(&str, Bson)]) -> io::Result<()> {
    let mut abort = doc! { "abortTransaction": 1, "$db": "admin" };
    add(&mut abort, transaction);
    send(server, &abort).await?;
    Ok(())
}

/// The reply to a command whose effect is undone. `None` if the server refuses it.
pub(crate) async fn run_and_undo(server: &str, command: &Command) -> io::Result<Option<Document>> {
    let mut server = TcpStream::connect(server).await?;
    let transaction = match command.name() {
        // A failover that loses the commit.
        "commitTransaction" => {
            let of_client = |field| Some((field, command.0.get(field)?.clone()));
            let fields = ["lsid", "txnNumber", "autocommit"];
            fields.into_iter().filter_map(of_client).collect::<Vec<_>>()
        }
        // No transaction may contain these.
        "drop" => return Ok(Some(doc! { "ok": 1, "nIndexesWas": 3, "ns": "a queue" })),
        _ if command.statements() == 0 => return Ok(Some(doc! { "ok": 1 })),
        _ => new_transaction(),
    };
    let mut reply = doc! { "ok": 1 };
    if command.statements() > 0 {
        let mut alone = within(command, &transaction);
        alone.insert("startTransaction", true);
        reply = send(&mut server, &alone).await?;
    }
    abort(&mut server, &transaction).await?;
    // A refused statement ends a transaction with all others.
    let is_refused =
        reply.get("ok").and_then(Bson::as_f64) == Some(0.0) || reply.contains_key("writeErrors");
    Ok((!is_refused).then_some(reply))
}

fn add(command: &mut Document, transaction: &[(&str, Bson)]) {
    for (field, value) in transaction {
        command.insert(*field, value.clone());
    }
}

async fn send(server: &mut TcpStream, command: &Document) -> io::Result<Document> {
    Message::command(command).write(server).await?;
    Ok(Message::read(server).await?.document())
}
