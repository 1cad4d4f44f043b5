//! What can happen to a message between a client and a server. Nothing here knows the protocol.

use std::{fmt, time::Duration};

use crate::failover::Kind;

/// The operation timeout of the clients under test. A silent connection may cost all of it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(4);

/// The same if they meet a real failover. A message is held until it is over.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a client's monitor looks at the server; the driver's shortest.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(500);

/// How long the driver waits for an answer to a look, and for a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The message waits until the adversary has moved.
    Pause,
    /// The request is carried out. Its reply waits.
    PauseAfter,
    /// The request does not arrive. The connection stays open and silent.
    RequestLost,
    /// The request is carried out. Its connection is silent from then on.
    ReplyLost,
    /// The connection ends before the request has arrived.
    ResetBefore,
    /// The request is carried out, and the connection ends instead of a reply.
    ResetAfter,
    /// The connection ends before the request arrives. So does the next new one, of the monitor, at its
    /// handshake.
    HelloReset,
    /// As `HelloReset`, but the handshake's reply comes later than the monitor waits.
    HelloLate,
    /// The connection ends before the request arrives. The monitor connects again, and the connection after
    /// that ends at its handshake.
    HandshakeReset,
    /// As `HandshakeReset`, but the handshake's reply is late.
    HandshakeLate,
    /// The connection ends, and the request arrives later.
    RequestLate(Arrival),
    /// The reply comes after this timeout has passed.
    ReplyLate(Timeout),
    /// The request does not arrive. All connections are silent until the monitor notices.
    SilenceBefore,
    /// The same, and the request is carried out.
    SilenceAfter,
    /// The server answers with an error.
    Error {
        code: i32,
        place: Place,
        has_label: bool,
    },
    /// A primary that has been voted out carries the request out, says that no majority has it, and
    /// the new primary does not have it.
    Undone,
    /// The same, and the client is not told. Only what the client does not want a majority to have.
    UndoneUnnoticed,
    /// A primary without a majority carries the request out, and the connection ends. What wants no
    /// majority sees what it did, also if the call is repeated. The next write that does meets the new
    /// primary, which has nothing of this.
    ShownUndone,
    /// The same, and the client is told that no majority has it.
    ShownUnconfirmed,
    /// The primary of a replica set steps down, and the request arrives there.
    StepDownBefore,
    /// The request is carried out. The reply comes when the primary has stepped down.
    StepDownAfter,
    /// A primary carries the request out, no majority gets it, another primary is elected, and the first
    /// one rolls it back.
    RollBack,
    /// The same, and the connection ends. What wants no majority still meets the first primary.
    RollBackShown,
    /// What the adversary writes, only such a primary has. The client reads from it, as above.
    OthersUndone,
    /// From here until the call ends, nothing arrives and all connections are silent.
    Gone,
    /// From here until the call ends, no majority answers: writes are carried out without a reply.
    NoMajority,
    /// From here until the call ends, the server refuses every request with this code.
    Refusing(i32),
}

/// When a late request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Arrival {
    /// Just before the next request of this client, which may look for it.
    BeforeNext,
    /// Just before the one after that, which may depend on what the look showed.
    BeforeSecond,
    /// When the call has ended.
    AfterCall,
}

/// A time limit of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Timeout {
    /// What one silent connection may cost a call.
    Connection,
    /// When the monitor gives up the server.
    Monitor,
    /// That of the call.
    Operation,
}

/// Where in a reply an error is, and what the server has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The whole command is refused.
    Refused,
    /// The command is interrupted after it was carried out.
    Done,
    /// The command is interrupted. All but its first statement is carried out.
    Part,
    /// No statement is carried out, and each is refused.
    Statements,
    /// The first statement is refused, and the others are carried out.
    Statement,
    /// All is carried out, and a majority may not have it.
    Concern,
}

const PLACES: [(Place, &str); 6] = [
    (Place::Refused, "refused"),
    (Place::Done, "done"),
    (Place::Part, "part"),
    (Place::Statements, "statements"),
    (Place::Statement, "statement"),
    (Place::Concern, "concern"),
];

const PLAIN: [(Fault, &str); 27] = [
    (Fault::Pause, "pause"),
    (Fault::PauseAfter, "pause_after"),
    (Fault::RequestLost, "request_lost"),
    (Fault::ReplyLost, "reply_lost"),
    (Fault::ResetBefore, "reset_before"),
    (Fault::ResetAfter, "reset_after"),
    (Fault::HelloReset, "hello_reset"),
    (Fault::HelloLate, "hello_late"),
    (Fault::HandshakeReset, "handshake_reset"),
    (Fault::HandshakeLate, "handshake_late"),
    (Fault::RequestLate(Arrival::BeforeNext), "request_late"),
    (
        Fault::RequestLate(Arrival::BeforeSecond),
        "request_late_by_two",
    ),
    (Fault::RequestLate(Arrival::AfterCall), "request_after_call"),
    (Fault::ReplyLate(Timeout::Connection), "late.connection"),
    (Fault::ReplyLate(Timeout::Monitor), "late.monitor"),
    (Fault::ReplyLate(Timeout::Operation), "late.operation"),
    (Fault::SilenceBefore, "silence_before"),
    (Fault::SilenceAfter, "silence_after"),
    (Fault::Undone, "undone"),
    (Fault::UndoneUnnoticed, "undone_unnoticed"),
    (Fault::ShownUndone, "shown_undone"),
    (Fault::ShownUnconfirmed, "shown_unconfirmed"),
    (Fault::OthersUndone, "others_undone"),
    (Fault::Gone, "gone"),
    (Fault::NoMajority, "no_majority"),
    // A server that is not the primary, and one that ends commands after it began with them.
    (Fault::Refusing(10107), "refusing.10107"),
    (Fault::Refusing(11601), "refusing.11601"),
];

/// Failovers of a replica set.
const FAILOVERS: [(Fault, &str); 4] = [
    (Fault::StepDownBefore, "step_down_before"),
    (Fault::StepDownAfter, "step_down_after"),
    (Fault::RollBack, "roll_back"),
    (Fault::RollBackShown, "roll_back_shown"),
];

/// One code for each way in which a server and a driver treat errors: not primary, stepped down,
/// shutting down, a conflict, interrupted, a time limit, the network between servers, no rights, and
/// any other.
pub(crate) const CODES: [i32; 9] = [10107, 189, 91, 112, 11601, 50, 6, 13, 8];

/// Codes of `error_codes.txt` that tell what the database contains. As faults they would be lies.
const FACTS: [i32; 8] = [
    3,     // OBSOLETE_DuplicateKey
    26,    // NamespaceNotFound
    27,    // IndexNotFound
    48,    // NamespaceExists
    85,    // IndexOptionsConflict
    86,    // IndexKeySpecsConflict
    256,   // TransactionCommitted
    11000, // DuplicateKey
];

/// Codes of a server that is not the primary, which it sends before it does anything.
const AT_START: [i32; 3] = [10058, 10107, 13435];

/// What a fault must know about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) name: String,
    pub(crate) statements: usize,
    pub(crate) is_change: bool,
    pub(crate) is_in_transaction: bool,
    pub(crate) is_durable: bool,
}

impl Timeout {
    /// How late a reply is.
    pub(crate) fn passed(self) -> Duration {
        const MORE: Duration = Duration::from_millis(200);
        MORE + match self {
            Self::Connection => TIMEOUT / 3,
            Self::Monitor => HEARTBEAT + CONNECT_TIMEOUT,
            Self::Operation => TIMEOUT,
        }
    }
}

impl Fault {
    /// The faults without a code.
    pub(crate) fn plain() -> impl Iterator<Item = Self> {
        PLAIN.into_iter().map(|(fault, _)| fault)
    }

    pub(crate) fn failovers() -> impl Iterator<Item = Self> {
        FAILOVERS.into_iter().map(|(fault, _)| fault)
    }

    /// What the replica set does, if this is a failover.
    pub(crate) fn failover(self) -> Option<Kind> {
        match self {
            Self::StepDownBefore | Self::StepDownAfter => Some(Kind::StepDown),
            Self::RollBack | Self::RollBackShown => Some(Kind::RollBack),
            _ => None,
        }
    }

    /// The errors of these codes in all places, also with the label of a server.
    pub(crate) fn errors(codes: &[i32]) -> impl Iterator<Item = Self> {
        let codes = codes.iter().filter(|code| !FACTS.contains(code));
        codes.flat_map(|&code| {
            let error = move |place, has_label| Self::Error {
                code,
                place,
                has_label,
            };
            let places = PLACES.into_iter().map(|(place, _)| place);
            // A server labels replies and not statements.
            let labelled = places
                .clone()
                .filter(|place| !matches!(place, Place::Statement | Place::Statements));
            let plain = places.map(move |place| error(place, false));
            plain.chain(labelled.map(move |place| error(place, true)))
        })
    }

    /// Whether a server or a network could do this to the request.
    pub(crate) fn fits(self, request: &Request) -> bool {
        let Request {
            statements,
            is_change,
            is_in_transaction,
            is_durable,
            ..
        } = *request;
        match self {
            Self::Undone => is_change && !is_in_transaction,
            Self::UndoneUnnoticed => match request.name.as_str() {
                "commitTransaction" => !is_durable,
                _ => is_change && !is_in_transaction && !is_durable,
            },
            Self::ShownUndone => statements > 0 && !is_in_transaction,
            Self::ShownUnconfirmed => statements > 0 && !is_in_transaction && is_durable,
            Self::OthersUndone => request.name == "find" && !is_in_transaction,
            Self::NoMajority => is_change && is_durable,
            Self::RollBack => is_change,
            Self::RollBackShown => statements > 0 && !is_in_transaction && is_durable,
            Self::Error { code, place, .. } => match place {
                Place::Refused => true,
                // An error ends a transaction, so nothing of it is done.
                Place::Done => is_change && !is_in_transaction && !AT_START.contains(&code),
                Place::Part => statements > 1 && !is_in_transaction && !AT_START.contains(&code),
                Place::Statements => statements > 0 && !is_in_transaction,
                Place::Statement => statements > 1 && !is_in_transaction,
                Place::Concern => is_change && (!is_in_transaction || statements == 0),
            },
            _ => true,
        }
    }

    /// Whether one connection is silent and the others work.
    pub(crate) fn is_one_silence(self) -> bool {
        matches!(self, Self::RequestLost | Self::ReplyLost)
    }

    /// How many new connections are made before the one whose handshake meets it, if any does.
    pub(crate) fn handshake(self) -> Option<usize> {
        match self {
            Self::HelloReset | Self::HelloLate => Some(0),
            Self::HandshakeReset | Self::HandshakeLate => Some(1),
            _ => None,
        }
    }

    /// Whether it lasts until the call has ended.
    pub(crate) fn lasts(self) -> bool {
        matches!(self, Self::Gone | Self::NoMajority | Self::Refusing(_))
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut named = PLAIN.iter().chain(&FAILOVERS);
        if let Some((fault, _)) = named.find(|(_, its)| *its == name) {
            return Some(*fault);
        }
        let mut words = name.split('.');
        if words.next() != Some("error") {
            return None;
        }
        let code = words.next()?.parse().ok()?;
        let place = words.next()?;
        let (place, _) = PLACES.iter().find(|(_, name)| *name == place)?;
        Some(Self::Error {
            code,
            place: *place,
            has_label: words.next() == Some("labelled"),
        })
    }

    /// The column of the table.
    pub(crate) fn class(self) -> String {
        match self {
            Self::Error { place, .. } => {
                let name = PLACES.iter().find(|(it, _)| *it == place);
                format!("error {}", name.map_or("", |(_, name)| name))
            }
            Self::ReplyLate(_) => "late".to_owned(),
            _ if self.handshake().is_some() => "handshake".to_owned(),
            plain => plain.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut named = PLAIN.iter().chain(&FAILOVERS);
        if let Some((_, name)) = named.find(|(fault, _)| fault == self) {
            return f.write_str(name);
        }
        if let Self::Error {
            code,
            place,
            has_label,
        } = self
        {
            let name = PLACES.iter().find(|(it, _)| it == place);
            let label = if *has_label { ".labelled" } else { "" };
            write!(
                f,
                "error.{code}.{}{label}",
                name.map_or("", |(_, name)| name)
            )?;
        }
        Ok(())
    }
}
