//! The driver's errors in words.
//!
//! Their `Display` has labels and the server's whole reply in hex, also of each server that was not
//! selected.

use mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};

/// Servers quote whole documents in some messages.
const LONGEST: usize = 500;

/// What went wrong, without labels and replies.
pub(crate) fn words(error: &DriverError) -> String {
    let text = match &*error.kind {
        DriverKind::Command(refused) => format!("code {}: {}", refused.code, refused.message),
        DriverKind::Write(WriteFailure::WriteError(refused)) => {
            format!("code {}: {}", refused.code, refused.message)
        }
        DriverKind::Write(WriteFailure::WriteConcernError(refused)) => {
            format!("code {}: {}", refused.code, refused.message)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
