//! The driver's errors in words, and as the sources of public ones.
//!
//! Their `Display` has labels and the server's whole reply in hex, also of each server that was not
//! selected.

use std::{error::Error as StdError, fmt};

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind};
use queue_api::{Error, ErrorKind};

use crate::store::codes::refusal;

/// Servers quote whole documents in some messages.
const LONGEST: usize = 500;

/// What went wrong, without labels and replies.
pub(crate) fn words(error: &DriverError) -> String {
    if let Some((code, message)) = refusal(error) {
        return shorten(format!("code {code}: {message}"));
    }
    let text = match &*error.kind {
        DriverKind::Io(error) => error.to_string(),
        DriverKind::InvalidArgument { message, .. } => without_details(message),
        DriverKind::ServerSelection { message, .. } => servers(&without_details(message)),
        kind => without_details(&kind.to_string()),
    };
    shorten(text)
}

/// Leaves out what the `Display` of a driver's error adds to its kind.
fn without_details(text: &str) -> String {
    let mut text = text.replace("Kind: ", "").replace("I/O error: ", "");
    while let Some(start) = text.find(", labels: {") {
        const LAST: &str = ", server response: ";
        let end = text[start..].find(LAST).map_or(text.len(), |found| {
            let value = start + found + LAST.len();
            let value_end = match text[value..].starts_with("Some(") {
                // Hexadecimal digits and no other parenthesis.
                true => text[value..].find(')').map(|length| length + 1),
                false => Some("None".len()),
            };
            value_end.map_or(text.len(), |length| (value + length).min(text.len()))
        });
        text.replace_range(start..end, "");
    }
    text
}

/// Why each server was not selected. The driver writes its whole view of them, as in "Topology:
/// { Type: Unknown, Servers: [ { Address: db:27017, Type: Unknown, Error: refused }, … ] }".
fn servers(message: &str) -> String {
    let Some((_, topology)) = message.split_once("Topology: ") else {
        return message.to_owned();
    };
    let servers = topology.split("{ Address: ").skip(1).map(|server| {
        let (address, rest) = server.split_once(", Type: ").unwrap_or((server, ""));
        let why = match rest.split_once(", Error: ") {
            Some((_, error)) => error.trim_end_matches([' ', ',', ']', '}']).to_owned(),
            None => {
                let end = rest.find([',', ' ']).unwrap_or(rest.len());
                server_type(&rest[..end]).to_owned()
            }
        };
        format!("{address}: {why}")
    });
    let servers: Vec<_> = servers.collect();
    match servers.is_empty() {
        true => "no server is known: none was asked yet, or none fits the settings".to_owned(),
        false => servers.join("; "),
    }
}

fn server_type(driver_name: &str) -> &str {
    match driver_name {
        // A known primary is selected at once, while the driver's tasks run.
        "RsPrimary" | "Standalone" | "Mongos" => {
            "was available; the tokio runtime of the client may have ended"
        }
        "RsSecondary" => "is a secondary, not the primary",
        "RsArbiter" => "is an arbiter",
        "RsOther" | "RsGhost" => "is not a working member of a replica set",
        "Unknown" => "did not answer",
        other => other,
    }
}

fn shorten(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

/// The public error for a driver's error: `message`, and the cause in words.
pub(crate) fn explained_by(
    source: DriverError,
    kind: ErrorKind,
    operation: &'static str,
    message: &str,
) -> Error {
    let message = format!("{message}: {}", words(&source));
    caused_by(source, kind, operation, message)
}

/// The same for a text that needs no words of the cause.
pub(crate) fn caused_by(
    source: DriverError,
    kind: ErrorKind,
    operation: &'static str,
    message: String,
) -> Error {
    Error::new(kind, operation, message).with_source(Cause::of(source))
}

/// A driver's error as the source of a public one: its text is in words, and so are its causes.
struct Cause {
    error: DriverError,
    source: Option<Box<Self>>,
}

impl Cause {
    fn of(error: DriverError) -> Self {
        let source = error.source().and_then(<dyn StdError>::downcast_ref);
        let source = source.map(|source: &DriverError| Box::new(Self::of(source.clone())));
        Self { error, source }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words(&self.error))
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match (&self.source, &*self.error.kind) {
            (Some(source), _) => Some(source.as_ref()),
            (None, DriverKind::Io(cause)) => Some(cause.as_ref()),
            (None, _) => None,
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's has the server's reply in hex.
        let mut labels: Vec<_> = self.error.labels().iter().collect();
        labels.sort();
        f.debug_tuple("DriverError")
            .field(&words(&self.error))
            .field(&labels)
            .field(&self.source)
            .finish()
    }
}

/// The driver's error that is the cause of `error`, if it has one.
///
/// A loop that repeats transactions looks at its labels:
///
/// ```
/// use queue_docdb::mongodb::error::TRANSIENT_TRANSACTION_ERROR;
///
/// fn may_be_repeated(error: &queue_api::Error) -> bool {
///     queue_docdb::driver_error(error)
///         .is_some_and(|cause| cause.contains_label(TRANSIENT_TRANSACTION_ERROR))
/// }
/// # let error = queue_api::Error::new(queue_api::ErrorKind::Internal, "ack", "no");
/// # assert!(!may_be_repeated(&error));
/// ```
pub fn driver_error(error: &Error) -> Option<&DriverError> {
    let cause: &Cause = error.source()?.downcast_ref()?;
    Some(&cause.error)
}

/// What a failure leaves open. Nothing, unless the call writes.
pub(crate) fn unknown_effect(operation: &str) -> &'static str {
    const READS: [&str; 7] = [
        "connect",
        "dead letters",
        "list queues",
        "peek",
        "start session",
        "stats",
        "wait",
    ];
    match READS.contains(&operation) {
        true => "",
        false => "; whether a write took effect is unknown",
    }
}

/// The message for a kind. The cause follows.
pub(crate) fn explanation(kind: ErrorKind, operation: &str) -> String {
    let text = match kind {
        ErrorKind::Unavailable => "the database is not available, or refuses this for now",
        ErrorKind::TimedOut => {
            let unknown_effect = unknown_effect(operation);
            return format!("the database reached a time limit{unknown_effect}");
        }
        ErrorKind::Denied => "the database refuses this user",
        ErrorKind::InvalidInput => "the database does not accept this",
        _ => "the database answered with an error",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codes::refused_command;

    #[test]
    fn a_drivers_error_can_be_had_and_its_debug_is_short() {
        let error = explained_by(
            refused_command(13, "no"),
            ErrorKind::Denied,
            "ack",
            "refused",
        );
        assert_eq!(error.to_string(), "ack: refused: code 13: no");
        assert_eq!(format!("{error:#}"), "ack: refused: code 13: no");
        let cause = driver_error(&error).expect("a driver's error");
        assert!(matches!(&*cause.kind, DriverKind::Command(_)));
        let debug = format!("{error:?}");
        assert!(debug.contains("code 13: no"), "{debug}");
        assert!(!debug.contains("RawDocument"), "{debug}");
        let broken = std::io::Error::other("broken");
        let error = explained_by(broken.into(), ErrorKind::Unavailable, "ack", "away");
        assert_eq!(format!("{error:#}"), "ack: away: broken", "told once");
        let cause = error.source().and_then(StdError::source);
        assert!(cause.is_some_and(|cause| cause.is::<std::io::Error>()));
        let other = Error::new(ErrorKind::Denied, "ack", "no").with_source("no");
        assert!(driver_error(&other).is_none());
    }

    #[test]
    fn details_are_left_out_wherever_they_are() {
        let plain = "Kind: I/O error: refused, labels: {}, source: None, server response: None";
        assert_eq!(without_details(plain), "refused");
        let nested = "pool cleared: Kind: no, labels: {\"A\", \"B\"}, source: Some(Error { kind: \
                      Io(x), server_response: None }), server response: Some(RawDocumentBuf { \
                      data: \"0500\" }) }, then more";
        assert_eq!(without_details(nested), "pool cleared: no }, then more");
        assert_eq!(without_details("cut, labels: {"), "cut");
    }

    #[test]
    fn each_server_has_its_reason() {
        let message = "Server selection timeout: No available servers. Topology: { Type: \
                       Unknown, Servers: [ { Address: a:1, Type: Unknown, Error: refused }, { \
                       Address: b:2, Type: RsSecondary, Average RTT: 1ms }, { Address: c:3, \
                       Type: Unknown } ] }";
        let expected = "a:1: refused; b:2: is a secondary, not the primary; c:3: did not answer";
        assert_eq!(servers(message), expected);
        let none = "Server selection timeout: No available servers. Topology: { Type: Unknown }";
        assert_eq!(
            servers(none),
            "no server is known: none was asked yet, or none fits the settings"
        );
        assert_eq!(servers("too old"), "too old");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(shorten("é".repeat(400)).chars().count(), 251);
        assert_eq!(shorten("short".to_owned()), "short");
    }
}
