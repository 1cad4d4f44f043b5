//! The kind of each of the driver's errors.

use std::collections::HashSet;

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};
use queue_api::ErrorKind;

use crate::codes;

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
    let mut kinds = refusals(error)
        .into_iter()
        .filter_map(|(code, message)| codes::kind(code, message));
    if let Some(kind) = kinds.next() {
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
    match codes::kind(code, message) {
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

/// All codes of the server in an error, with their messages.
pub(crate) fn refusals(error: &DriverError) -> Vec<(i32, &str)> {
    match &*error.kind {
        DriverKind::Command(command) => vec![(command.code, &command.message)],
        DriverKind::Write(WriteFailure::WriteError(write)) => vec![(write.code, &write.message)],
        DriverKind::Write(WriteFailure::WriteConcernError(concern)) => {
            vec![(concern.code, &concern.message)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
