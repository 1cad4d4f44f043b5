//! The kind of each of the driver's errors, and of each error code of MongoDB, Atlas and Amazon
//! DocumentDB.
//!
//! `error_codes.txt` lists all codes, with their kinds and sources.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};
use queue_api::ErrorKind;

/// An `_id` that is stored already.
pub(crate) const DUPLICATE_KEY: i32 = 11000;

/// There is no such collection.
pub(crate) const NAMESPACE_NOT_FOUND: i32 = 26;

/// A server that takes no writes, because it is not the primary.
pub(crate) const NOT_PRIMARY: i32 = 10107;

/// A server that wants an API version (`requireApiVersion`), and a client that has none. MongoDB's
/// source has the number only where it is used.
pub(crate) const API_VERSION_REQUIRED: i32 = 498_870;

/// Out of memory or disk space. An operator must act.
const EXHAUSTED: [i32; 2] = [146, 14031];

/// `AtlasError`, for refusals of the Atlas service itself.
const ATLAS: i32 = 8000;

/// The kinds of the codes that the table has.
static KINDS: LazyLock<HashMap<i32, ErrorKind>> = LazyLock::new(|| table().flatten().collect());

/// The kind of an error code with this message. `None` if it is unknown.
pub(crate) fn kind(code: i32, message: &str) -> Option<ErrorKind> {
    // Three codes have several meanings.
    match code {
        ATLAS => return atlas_kind(message),
        // DocumentDB before 8.0.2, if the client's retryable writes are on. On MongoDB, damaged data.
        301 => {
            return message
                .contains("etryable")
                .then_some(ErrorKind::InvalidInput);
        }
        // DocumentDB: a feature that it lacks. On MongoDB, a set whose host names change.
        303 if message.contains("not supported") => return Some(ErrorKind::InvalidInput),
        _ => {}
    }
    KINDS.get(&code).copied()
}

/// The lines of the table. `None`: a comment, or a line that cannot be read.
fn table() -> impl Iterator<Item = Option<(i32, ErrorKind)>> {
    let lines = include_str!("error_codes.txt").lines();
    lines.map(|line| {
        let mut words = line.split(' ');
        let code = words.next()?.parse().ok()?;
        let kind = match words.nth(1)? {
            "Denied" => ErrorKind::Denied,
            "Internal" => ErrorKind::Internal,
            "InvalidInput" => ErrorKind::InvalidInput,
            "TimedOut" => ErrorKind::TimedOut,
            "Unavailable" => ErrorKind::Unavailable,
            _ => return None,
        };
        Some((code, kind))
    })
}

/// Whether only an operator can help, so that a retry is useless.
pub(crate) fn needs_operator(code: i32, message: &str) -> bool {
    EXHAUSTED.contains(&code) || (code == ATLAS && is_atlas_limit(message))
}

/// Whether the server sends this code before the first statement of a command, because it is not
/// the primary. Any other code may end a command that has begun, also a write conflict (112):
/// DocumentDB undoes one document of a command, not all.
/// <https://docs.aws.amazon.com/documentdb/latest/developerguide/functional-differences.html>
pub(crate) fn is_refused_at_start(code: i32) -> bool {
    matches!(code, NOT_PRIMARY | 13435 | 10058)
}

fn atlas_kind(message: &str) -> Option<ErrorKind> {
    if is_atlas_limit(message) {
        return Some(ErrorKind::Unavailable);
    }
    let message = message.to_ascii_lowercase();
    [
        "bad auth",
        "authentication",
        "not authorized",
        "not allowed to do action",
    ]
    .iter()
    .any(|words| message.contains(words))
    .then_some(ErrorKind::Denied)
}

/// The limits of a cluster's tier: "you are over your space quota, …", "cannot create a new
/// collection -- already using 500 collections of 500".
fn is_atlas_limit(message: &str) -> bool {
    message.contains("quota") || message.contains("already using")
}

pub(crate) fn is_retryable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut)
}

pub(crate) fn kind_of_driver_error(error: &DriverError) -> ErrorKind {
    let kind = kind_without_labels(error);
    match is_labelled_retryable(error.labels()) && !is_retryable(kind) {
        true => ErrorKind::Unavailable,
        false => kind,
    }
}

fn kind_without_labels(error: &DriverError) -> ErrorKind {
    if let DriverKind::Write(WriteFailure::WriteConcernError(concern)) = &*error.kind {
        return kind_of_concern(concern.code, &concern.message);
    }
    if let Some(kind) = refusal(error).and_then(|(code, message)| kind(code, message)) {
        return kind;
    }
    match &*error.kind {
        DriverKind::Authentication { message, .. } if is_about_an_outage(message) => {
            ErrorKind::Unavailable
        }
        DriverKind::Authentication { .. } => ErrorKind::Denied,
        DriverKind::ServerSelection { message, .. } if is_about_versions(message) => {
            ErrorKind::InvalidInput
        }
        DriverKind::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            ErrorKind::TimedOut
        }
        DriverKind::Io(_)
        | DriverKind::ConnectionPoolCleared { .. }
        | DriverKind::ServerSelection { .. }
        | DriverKind::DnsResolve { .. } => ErrorKind::Unavailable,
        DriverKind::InvalidArgument { .. }
        | DriverKind::InvalidTlsConfig { .. }
        // Of another version than the driver's, or without a feature that a setting needs.
        | DriverKind::IncompatibleServer { .. }
        | DriverKind::SessionsNotSupported => ErrorKind::InvalidInput,
        _ => ErrorKind::Internal,
    }
}

/// Whether a login failed because the server stops or is not ready. The driver passes on the
/// server's text, without its code.
fn is_about_an_outage(authentication: &str) -> bool {
    const WORDS: [&str; 7] = [
        "interrupted",
        "shut down",
        "shutdown",
        "not primary",
        "not master",
        "node is recovering",
        "exceeded time limit",
    ];
    let text = authentication.to_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

/// Whether the driver knows only older or newer servers: "Server at db:27017 reports wire version 6,
/// but this version of the MongoDB Rust driver requires at least 8".
fn is_about_versions(server_selection: &str) -> bool {
    server_selection.starts_with("Server at ") && server_selection.contains("wire version")
}

/// A majority has not confirmed a write, whatever the reason is. The repeat finds what is true by
/// then.
pub(crate) fn kind_of_concern(code: i32, message: &str) -> ErrorKind {
    match kind(code, message) {
        Some(ErrorKind::TimedOut) => ErrorKind::TimedOut,
        _ => ErrorKind::Unavailable,
    }
}

/// Whether the server or the driver says that a repeat may succeed.
fn is_labelled_retryable(labels: &HashSet<String>) -> bool {
    [
        "RetryableWriteError",
        "TransientTransactionError",
        // From servers that limit their load.
        "RetryableError",
        "SystemOverloadedError",
    ]
    .iter()
    .any(|label| labels.contains(*label))
}

/// The server's code in an error, with its message.
pub(crate) fn refusal(error: &DriverError) -> Option<(i32, &str)> {
    match &*error.kind {
        DriverKind::Command(command) => Some((command.code, &command.message)),
        DriverKind::Write(WriteFailure::WriteError(write)) => Some((write.code, &write.message)),
        DriverKind::Write(WriteFailure::WriteConcernError(concern)) => {
            Some((concern.code, &concern.message))
        }
        _ => None,
    }
}

/// The driver's error for a whole command that the server refused.
#[cfg(test)]
pub(crate) fn refused_command(code: i32, message: &str) -> DriverError {
    let reply = serde_json::json!({ "code": code, "codeName": "", "errmsg": message });
    let refused = serde_json::from_value(reply).expect("an error");
    DriverError::from(DriverKind::Command(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_code_once_with_its_kind() {
        let lines = include_str!("error_codes.txt").lines();
        let mut last = i32::MIN;
        for (line, row) in lines.zip(table()) {
            if let Some((code, expected)) = row {
                assert!(last < code, "{line} is in order");
                last = code;
                let [_, name, _] = line.split(' ').collect::<Vec<_>>()[..] else {
                    panic!("{line}");
                };
                let kind = kind(code, name).unwrap_or(ErrorKind::Internal);
                assert_eq!(kind, expected, "{line}");
            } else {
                assert!(line.starts_with('#'), "{line}");
            }
        }
        assert_eq!(kind(99_999, "unknown"), None);
    }

    /// Messages as users reported them.
    #[test]
    fn the_message_tells_the_meanings_of_a_code_apart() {
        use ErrorKind::{Denied, InvalidInput, Unavailable};
        for (code, message, expected) in [
            (8000, "bad auth : Authentication failed.", Some(Denied)),
            (8000, "bad auth : authentication failed", Some(Denied)),
            (
                8000,
                "user is not allowed to do action [insert] on [shop.queue.mail]",
                Some(Denied),
            ),
            (
                8000,
                "you are over your space quota, using 513 MB of 512 MB",
                Some(Unavailable),
            ),
            (
                8000,
                "cannot create a new collection -- already using 501 collections of 500",
                Some(Unavailable),
            ),
            (
                8000,
                "no SNI name sent, make sure using a MongoDB 3.4+ driver/shell.",
                None,
            ),
            (
                301,
                "Retryable writes are not supported",
                Some(InvalidInput),
            ),
            (301, "Data corruption detected", None),
            (
                303,
                "Feature not supported: 'causal consistency'",
                Some(InvalidInput),
            ),
            (303, "Legacy opcodes are not supported", Some(InvalidInput)),
            (
                303,
                "Sending a hello response after a horizon change",
                Some(Unavailable),
            ),
            (9, "Unrecognized field: 'txnNumber'", Some(InvalidInput)),
            (-301, "Unsupported mechanism", Some(Denied)),
        ] {
            assert_eq!(kind(code, message), expected, "{code} {message}");
            let is_limit = message.contains("over your") || message.contains("cannot create");
            assert_eq!(needs_operator(code, message), is_limit, "{message}");
        }
    }

    #[test]
    fn a_version_that_the_driver_does_not_know_is_no_outage() {
        let old = "Server at db:27017 reports wire version 6, but this version of the MongoDB Rust \
                   driver requires at least 8 (MongoDB 4.2).";
        assert!(is_about_versions(old));
        let away = "Server selection timeout: No available servers. Topology: { Type: Single, \
                    Servers: [ { Address: a:1, Type: RsOther, Max Wire Version: 17 } ] }";
        assert!(!is_about_versions(away));
    }

    #[test]
    fn a_login_that_a_shutdown_interrupts_is_an_outage() {
        for away in [
            "interrupted at shutdown",
            "The server is in quiesce mode and will shut down",
            "Shutdown in progress",
            "not primary",
            "operation exceeded time limit",
        ] {
            assert!(
                is_about_an_outage(&format!("SCRAM failure: {away}")),
                "{away}"
            );
        }
        for refused in ["Authentication failed.", "Unsupported mechanism PLAIN"] {
            let text = format!("SCRAM failure: {refused}");
            assert!(!is_about_an_outage(&text), "{refused}");
        }
    }
}
