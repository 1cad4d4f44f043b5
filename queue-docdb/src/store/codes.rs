//! The kind of each of the driver's errors, and of each error code of MongoDB, Atlas and Amazon
//! DocumentDB.
//!
//! `tests/error_codes.txt` lists all of them, with sources. The lists here have the codes that are
//! not [`Internal`](ErrorKind::Internal). An unknown code is.

use std::collections::HashSet;

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

/// The user, the credentials or the way to log in.
const DENIED: [i32; 8] = [-301, 11, 13, 18, 214, 334, 391, 392];

/// A setting, the deployment, or what an operator made of a queue's collection.
const INVALID_INPUT: [i32; 20] = [
    9,
    20,
    73,
    85,
    86,
    121,
    148,
    166,
    167,
    257,
    263,
    322,
    323,
    324,
    347,
    354,
    10334,
    13297,
    17280,
    API_VERSION_REQUIRED,
];

/// Time limits, among them that of a write concern.
const TIMED_OUT: [i32; 3] = [50, 64, 262];

/// Refusals that pass.
const UNAVAILABLE: &[&[i32]] = &[
    // The network between the servers, and the servers behind a `mongos` or an LDAP server.
    &[
        6, 7, 83, 89, 133, 145, 149, 202, 230, 231, 404, 407, 9001, 56846,
    ],
    // Not primary, no majority, starting, recovering, shutting down.
    &[
        90, 91, 94, 100, 134, 189, 210, 211, 216, 278, 303, 10058, 10107, 11600, 11602, 13435,
        13436,
    ],
    // A conflict with another write, a lock, or a snapshot that is gone.
    &[24, 46, 107, 112, 239, 246, 250, 267, 272, 343, 365],
    // Interrupted, or its cursor killed.
    &[
        43, 175, 237, 276, 279, 281, 282, 314, 355, 453, 11601, 46841, 91331, 10_045_600,
    ],
    // Another operation on the collection or the database is under way, such as a drop.
    &[117, 215, 285, 319, 338, 406, 412, 12586, 12587, 50915],
    // A router or a shard that does not know the newest placement.
    &[
        63, 70, 71, 82, 150, 199, 203, 234, 249, 304, 320, 321, 325, 358, 9996, 13388,
    ],
    // The server has ended the transaction. All of it may be tried again.
    &[225, 251, 290, 388],
    // Too much work, or too many sessions or files.
    &[261, 264, 402, 433, 449, 450, 462],
    // An operator blocks writes, or this query.
    &[371, 411],
];

/// Out of memory or disk space. An operator must act.
const EXHAUSTED: [i32; 2] = [146, 14031];

/// `AtlasError`, for refusals of the Atlas service itself.
const ATLAS: i32 = 8000;

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
    if DENIED.contains(&code) {
        Some(ErrorKind::Denied)
    } else if INVALID_INPUT.contains(&code) {
        Some(ErrorKind::InvalidInput)
    } else if TIMED_OUT.contains(&code) {
        Some(ErrorKind::TimedOut)
    } else if UNAVAILABLE.iter().any(|codes| codes.contains(&code)) || EXHAUSTED.contains(&code) {
        Some(ErrorKind::Unavailable)
    } else {
        None
    }
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

    /// Each line of the table: a code, its name, and the kind.
    fn table() -> impl Iterator<Item = (i32, &'static str, &'static str)> {
        let lines = include_str!("../../tests/error_codes.txt").lines();
        lines.filter(|line| !line.starts_with('#')).map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [code, name, kind] = words[..] else {
                panic!("{line}");
            };
            (code.parse().expect(line), name, kind)
        })
    }

    #[test]
    fn every_code_has_the_kind_of_the_table() {
        let mut last = i32::MIN;
        for (code, name, expected) in table() {
            assert!(last < code, "{code} {name} is in order");
            last = code;
            let kind = kind(code, name).unwrap_or(ErrorKind::Internal);
            assert_eq!(format!("{kind:?}"), expected, "{code} {name}");
        }
        assert_eq!(kind(99_999, "unknown"), None);
    }

    #[test]
    fn every_code_here_is_in_the_table() {
        let listed: Vec<i32> = table().map(|(code, ..)| code).collect();
        let unavailable = UNAVAILABLE.concat();
        let here = [
            &DENIED[..],
            &INVALID_INPUT,
            &TIMED_OUT,
            &unavailable,
            &EXHAUSTED,
        ]
        .concat();
        for code in &here {
            assert!(listed.contains(code), "{code}");
            let times = here.iter().filter(|other| *other == code).count();
            assert_eq!(times, 1, "{code}");
        }
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
