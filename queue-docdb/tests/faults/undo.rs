//! What a failover undoes. Commands run in a transaction that is aborted: their replies are those of the
//! old primary, and the new primary has nothing of them.

use std::io;

use mongodb::bson::{Bson, Document, Uuid, doc};
use tokio::{net::TcpStream, sync::Mutex};

use crate::wire::{Command, Message};

/// What belongs to a session or a transaction of the client.
const OF_THE_CLIENT: [&str; 5] = [
    "lsid",
    "txnNumber",
    "$clusterTime",
    "writeConcern",
    "readConcern",
];

/// A primary without a majority, while the client still meets it.
#[derive(Default)]
pub(crate) struct OldPrimary(Mutex<Option<Shown>>);

/// What it has that the next primary does not have.
struct Shown {
    server: TcpStream,
    transaction: Vec<(&'static str, Bson)>,
}

impl OldPrimary {
    /// The client meets it from now on: it carries out a command. Returns its reply, or `None` if the
    /// server refuses the command.
    pub(crate) async fn carry_out(
        &self,
        server: &str,
        command: &Command,
    ) -> io::Result<Option<Document>> {
        let reply = match &mut *self.0.lock().await {
            Some(old) => send(&mut old.server, &within(command, &old.transaction)).await?,
            new => {
                let old = new.insert(Shown {
                    server: TcpStream::connect(server).await?,
                    transaction: new_transaction(),
                });
                let mut first = within(command, &old.transaction);
                first.insert("startTransaction", true);
                send(&mut old.server, &first).await?
            }
        };
        if is_refused(&reply) {
            self.end().await?;
            return Ok(None);
        }
        Ok(Some(reply))
    }

    /// Its reply, if the client meets it and waits for no majority. Otherwise, it is voted out.
    pub(crate) async fn answer(&self, command: &Command) -> io::Result<Option<Document>> {
        let mut shown = self.0.lock().await;
        let Some(old) = shown.as_mut() else {
            return Ok(None);
        };
        let is_change = command.is_change();
        if command.fits_transaction() && !(is_change && command.is_durable()) {
            let reply = send(&mut old.server, &within(command, &old.transaction)).await?;
            if !is_refused(&reply) {
                return Ok(Some(reply));
            }
        } else if !is_change {
            // No transaction may contain it.
            return Ok(None);
        }
        drop(shown);
        self.end().await?;
        Ok(None)
    }

    /// What it has is undone, and the client meets the next primary.
    pub(crate) async fn end(&self) -> io::Result<()> {
        match self.0.lock().await.take() {
            Some(mut old) => abort(&mut old.server, &old.transaction).await,
            None => Ok(()),
        }
    }
}

/// Whether this ends a transaction: a refused statement does so with all others.
fn is_refused(reply: &Document) -> bool {
    reply.get("ok").and_then(Bson::as_f64) == Some(0.0) || reply.contains_key("writeErrors")
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
    Ok((!is_refused(&reply)).then_some(reply))
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
