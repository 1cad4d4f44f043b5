//! MongoDB's wire protocol, as far as a proxy reads it: whole messages, the commands in them, and
//! replies in their place.
//!
//! <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>

use std::io;

use mongodb::bson::{Bson, Document, RawDocument, doc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::schedule::Request;

const HEADER: usize = 16;

/// The handshake of a new connection.
const OP_QUERY: i32 = 2004;

const OP_MSG: i32 = 2013;

/// The commands by which a driver watches its servers.
const CHECKS: [&str; 3] = ["hello", "isMaster", "ismaster"];

/// Commands that may change data, each with the field of its statements.
const WRITES: [(&str, &str); 3] = [
    ("insert", "documents"),
    ("update", "updates"),
    ("delete", "deletes"),
];

/// Other commands that take a write concern.
const CHANGES: [&str; 7] = [
    "commitTransaction",
    "create",
    "createIndexes",
    "drop",
    "dropIndexes",
    "collMod",
    "findAndModify",
];

/// A message in either direction.
#[derive(Clone, Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// Its length, in the first 4 bytes, counts itself.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length).await?;
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        bytes[..4].copy_from_slice(&length);
        from.read_exact(&mut bytes[4..]).await?;
        Ok(Self(bytes))
    }

    pub(crate) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.0).await
    }

    pub(crate) fn id(&self) -> i32 {
        self.number(4)
    }

    /// The id of the message that this one answers.
    pub(crate) fn answers(&self) -> i32 {
        self.number(8)
    }

    fn number(&self, at: usize) -> i32 {
        let bytes = self.0[at..at + 4].try_into();
        i32::from_le_bytes(bytes.expect("4 bytes"))
    }

    /// The command or the reply, with the documents of all sections.
    pub(crate) fn document(&self) -> Document {
        match self.number(12) {
            OP_MSG => self.sections(),
            OP_QUERY => {
                let name = &self.0[HEADER + 4..];
                let end = name.iter().position(|&byte| byte == 0).unwrap_or(0);
                document(&name[end + 1 + 8..])
            }
            _ => Document::new(),
        }
    }

    fn sections(&self) -> Document {
        let mut rest = &self.0[HEADER + 4..];
        let mut all = Document::new();
        while let Some((&kind, body)) = rest.split_first() {
            let length = i32::from_le_bytes(body[..4].try_into().expect("4 bytes")) as usize;
            let (section, after) = body.split_at(length);
            if kind == 0 {
                all.extend(document(section));
            } else {
                // A sequence of documents, after its name.
                let end = section[4..].iter().position(|&byte| byte == 0).unwrap_or(0) + 4;
                let name = String::from_utf8_lossy(&section[4..end]).into_owned();
                let mut sequence = &section[end + 1..];
                let mut documents = Vec::new();
                while !sequence.is_empty() {
                    let length = i32::from_le_bytes(sequence[..4].try_into().expect("4 bytes"));
                    let (one, after) = sequence.split_at(length as usize);
                    documents.push(Bson::Document(document(one)));
                    sequence = after;
                }
                all.insert(name, documents);
            }
            rest = after;
        }
        all
    }

    /// The same message with another document.
    pub(crate) fn with_document(&self, document: &Document) -> Self {
        Self::new(self.id(), self.answers(), document)
    }

    /// A reply to this message.
    pub(crate) fn reply(&self, document: &Document) -> Self {
        // Ids of a server's messages are not compared with anything.
        Self::new(0, self.id(), document)
    }

    /// A command of no known driver.
    pub(crate) fn command(document: &Document) -> Self {
        Self::new(1, 0, document)
    }

    fn new(id: i32, answers: i32, document: &Document) -> Self {
        let mut bytes = Vec::new();
        for number in [0, id, answers, OP_MSG, 0] {
            bytes.extend(number.to_le_bytes());
        }
        // The section of the body.
        bytes.push(0);
        document.to_writer(&mut bytes).expect("a document");
        let length = i32::try_from(bytes.len()).expect("a short message");
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        Self(bytes)
    }
}

fn document(bytes: &[u8]) -> Document {
    let length = i32::from_le_bytes(bytes[..4].try_into().expect("4 bytes")) as usize;
    let raw = RawDocument::from_bytes(&bytes[..length]);
    raw.and_then(Document::try_from).unwrap_or_default()
}

/// A command of a client.
#[derive(Clone, Debug)]
pub(crate) struct Command(pub(crate) Document);

impl Command {
    pub(crate) fn name(&self) -> &str {
        self.0.keys().next().map_or("", String::as_str)
    }

    pub(crate) fn request(&self) -> Request {
        Request {
            name: self.name().to_owned(),
            statements: self.statements(),
            is_change: self.is_change(),
            is_in_transaction: self.is_in_transaction(),
            is_durable: self.is_durable(),
        }
    }

    /// Whether the driver sends it to look at the server or to set up a connection.
    pub(crate) fn is_check(&self) -> bool {
        CHECKS.contains(&self.name())
    }

    /// Whether the driver's monitor waits with it for news of the server.
    pub(crate) fn is_monitor(&self) -> bool {
        self.is_check() && self.0.contains_key("maxAwaitTimeMS")
    }

    /// Whether the driver sends it by itself, some time after a call.
    pub(crate) fn is_cleanup(&self) -> bool {
        ["endSessions", "killCursors", "abortTransaction"].contains(&self.name())
    }

    /// The field with the statements of a write.
    fn statements_field(&self) -> Option<&'static str> {
        let of = |(name, field): &(&str, &'static str)| (*name == self.name()).then_some(*field);
        WRITES.iter().find_map(of)
    }

    /// The number of statements of a write, else 0.
    pub(crate) fn statements(&self) -> usize {
        let field = self.statements_field();
        field.map_or(0, |field| self.0.get_array(field).map_or(0, Vec::len))
    }

    /// Whether it takes a write concern.
    pub(crate) fn is_change(&self) -> bool {
        self.statements() > 0 || CHANGES.contains(&self.name())
    }

    /// Whether it belongs to a transaction of the application.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.0.contains_key("autocommit")
    }

    /// Whether the server answers only when no failover can undo it.
    pub(crate) fn is_durable(&self) -> bool {
        let concern = self.0.get_document("writeConcern");
        concern.is_ok_and(|concern| concern.get_str("w") == Ok("majority"))
    }

    /// The same, answered as soon as it is carried out.
    pub(crate) fn without_majority(&self) -> Document {
        let mut local = self.0.clone();
        local.insert("writeConcern", doc! { "w": 1 });
        local
    }

    /// Whether any client may send it in a transaction.
    pub(crate) fn fits_transaction(&self) -> bool {
        (self.name() == "find" || self.statements() > 0) && !self.is_in_transaction()
    }

    /// Whether it needs more than the primary. Indexes do, whatever the client wants.
    pub(crate) fn waits_for_majority(&self) -> bool {
        self.is_change() && (self.is_durable() || self.statements() == 0)
    }

    /// The command without its first statement.
    pub(crate) fn without_first_statement(&self) -> Document {
        let mut rest = self.0.clone();
        if let Some(field) = self.statements_field()
            && let Ok(statements) = rest.get_array_mut(field)
        {
            statements.remove(0);
        }
        rest
    }
}
